#!/bin/bash
# Becomes one of Spark's daemons: start.sh master|worker|history ARGUMENT...
set -euo pipefail
umask 077
role=$1
shift

own=/run/millrace/spark
scratch=/var/lib/millrace/spark-scratch
conf=/tmp/spark

# What a predecessor left when it was killed. Folders of jobs stay: Spark clears them away itself.
rm -rf "$scratch/tmp" "$scratch/local"
mkdir -p "$scratch/tmp" "$scratch/local" "$scratch/work" "$conf"

sh "$own/truststore.sh"
# Jetty reads keys from a key store alone. Its password is new with each start and never leaves the container.
password=$(tr -d - </proc/sys/kernel/random/uuid)
printf '%s' "$password" >"$conf/password"
openssl pkcs12 -export -in /run/millrace/tls/tls.crt -inkey /run/millrace/tls/tls.key -name server \
    -out "$conf/server.p12" -passout "file:$conf/password"
{
    cat "$own/spark-defaults.conf"
    for namespace in standalone historyServer; do
        echo "spark.ssl.$namespace.keyStorePassword $password"
        echo "spark.ssl.$namespace.keyPassword $password"
    done
} >"$conf/spark-defaults.conf"
rm "$conf/password"

export SPARK_CONF_DIR=$conf SPARK_LOCAL_DIRS=$scratch/local SPARK_WORKER_DIR=$scratch/work
# The master takes its secret from the environment: Spark has refused to serve REST with one in the configuration.
if [ -r "$own/secret" ]; then
    _SPARK_AUTH_SECRET=$(cat "$own/secret")
    export _SPARK_AUTH_SECRET
fi
# For daemons, executors and drivers alike: /tmp does not run programs, and native libraries are unpacked there.
export JDK_JAVA_OPTIONS="$TRUST_STORE_OPTIONS -Djava.io.tmpdir=$scratch/tmp"

daemon=("$SPARK_HOME/bin/spark-class")
case $role in
    worker) exec "${daemon[@]}" org.apache.spark.deploy.worker.Worker "$@" ;;
    history) exec "${daemon[@]}" org.apache.spark.deploy.history.HistoryServer "$@" ;;
esac

# The master and the TLS side of its REST server: the container ends with either.
"${daemon[@]}" org.apache.spark.deploy.master.Master "$@" &
master=$!
python3 "$own/rest_tls.py" &
rest=$!
trap 'kill "$master" "$rest" 2>/dev/null' TERM INT
set +e
wait -n
status=$?
kill "$master" "$rest" 2>/dev/null
wait
exit "$status"
