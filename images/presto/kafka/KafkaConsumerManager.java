package com.facebook.presto.kafka;

import com.facebook.presto.spi.HostAddress;
import com.facebook.presto.spi.classloader.ThreadContextClassLoader;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.config.SaslConfigs;
import org.apache.kafka.common.serialization.ByteBufferDeserializer;

import javax.inject.Inject;

import java.nio.ByteBuffer;
import java.util.Properties;

/**
 * Makes the connector's Kafka consumers, with the security settings that release 0.287 has no place for.
 */
public class KafkaConsumerManager
{
    private final KafkaConnectorConfig config;

    @Inject
    public KafkaConsumerManager(KafkaConnectorConfig config)
    {
        this.config = config;
    }

    KafkaConsumer<ByteBuffer, ByteBuffer> createConsumer(String threadName, HostAddress broker)
    {
        Properties properties = new Properties();
        properties.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, broker.toString());
        properties.put(ConsumerConfig.CLIENT_ID_CONFIG, threadName + "-" + broker);
        properties.put(ConsumerConfig.GROUP_ID_CONFIG, threadName);
        properties.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        properties.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, config.getMaxPollRecords());
        properties.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, config.getMaxPartitionFetchBytes());
        properties.put(CommonClientConfigs.SECURITY_PROTOCOL_CONFIG, config.getSecurityProtocol());
        properties.put(SaslConfigs.SASL_MECHANISM, config.getSaslMechanism());
        if (config.getSaslJaasConfig() != null) {
            properties.put(SaslConfigs.SASL_JAAS_CONFIG, config.getSaslJaasConfig());
        }
        // The client looks for its login modules in the thread's class loader.
        try (ThreadContextClassLoader ignored = new ThreadContextClassLoader(KafkaPlugin.class.getClassLoader())) {
            return new KafkaConsumer<>(properties, new ByteBufferDeserializer(), new ByteBufferDeserializer());
        }
    }
}
