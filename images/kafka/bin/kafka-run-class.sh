#!/bin/sh
# Runs a class of Kafka, as the script of this name in Kafka's own distribution does:
#
#   kafka-run-class.sh kafka.tools.StorageTool info -c FILE
#
# Called by the name of one of the tools below, it runs that tool. KAFKA_OPTS and KAFKA_HEAP_OPTS are options
# for Java. Native libraries are unpacked where programs may run, which /tmp is not.
set -eu
case ${0##*/} in
kafka-acls.sh) set -- org.apache.kafka.tools.AclCommand "$@" ;;
kafka-configs.sh) set -- kafka.admin.ConfigCommand "$@" ;;
kafka-consumer-groups.sh) set -- org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "$@" ;;
kafka-get-offsets.sh) set -- org.apache.kafka.tools.GetOffsetShell "$@" ;;
kafka-metadata-quorum.sh) set -- org.apache.kafka.tools.MetadataQuorumCommand "$@" ;;
kafka-reassign-partitions.sh) set -- org.apache.kafka.tools.reassign.ReassignPartitionsCommand "$@" ;;
kafka-storage.sh) set -- kafka.tools.StorageTool "$@" ;;
kafka-topics.sh) set -- org.apache.kafka.tools.TopicCommand "$@" ;;
esac
# shellcheck disable=SC2086  # options are words
exec java ${KAFKA_HEAP_OPTS:--Xmx128m} ${KAFKA_OPTS:-} -cp '/opt/kafka/libs/*' "$@"
