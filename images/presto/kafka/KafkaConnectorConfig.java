package com.facebook.presto.kafka;

import com.facebook.airlift.configuration.Config;
import com.facebook.airlift.configuration.ConfigDescription;
import com.facebook.airlift.configuration.ConfigSecuritySensitive;
import com.facebook.presto.kafka.schema.file.FileTableDescriptionSupplier;
import com.facebook.presto.kafka.server.file.FileKafkaClusterMetadataSupplier;
import io.airlift.units.Duration;
import io.airlift.units.MinDuration;

import javax.validation.constraints.Min;
import javax.validation.constraints.NotNull;
import javax.validation.constraints.Pattern;

/**
 * The connector's settings with three more, which later releases have under the same names: security protocol,
 * SASL mechanism and JAAS configuration of the Kafka client.
 */
public class KafkaConnectorConfig
{
    private Duration connectTimeout = Duration.valueOf("10s");
    private String defaultSchema = "default";
    private boolean hideInternalColumns = true;
    private int maxPollRecords = 500;
    private int maxPartitionFetchBytes = 1024 * 1024;
    private String tableDescriptionSupplier = FileTableDescriptionSupplier.NAME;
    private String clusterMetadataSupplier = FileKafkaClusterMetadataSupplier.NAME;
    private String securityProtocol = "PLAINTEXT";
    private String saslMechanism = "GSSAPI";
    private String saslJaasConfig;

    @NotNull
    public String getDefaultSchema()
    {
        return defaultSchema;
    }

    @Config("kafka.default-schema")
    public KafkaConnectorConfig setDefaultSchema(String value)
    {
        defaultSchema = value;
        return this;
    }

    @MinDuration("1s")
    public Duration getKafkaConnectTimeout()
    {
        return connectTimeout;
    }

    @Config("kafka.connect-timeout")
    public KafkaConnectorConfig setKafkaConnectTimeout(String value)
    {
        connectTimeout = Duration.valueOf(value);
        return this;
    }

    @Min(1)
    public int getMaxPollRecords()
    {
        return maxPollRecords;
    }

    @Config("kafka.max-poll-records")
    public KafkaConnectorConfig setMaxPollRecords(int value)
    {
        maxPollRecords = value;
        return this;
    }

    @Min(1)
    public int getMaxPartitionFetchBytes()
    {
        return maxPartitionFetchBytes;
    }

    @Config("kafka.max-partition-fetch-bytes")
    public KafkaConnectorConfig setMaxPartitionFetchBytes(int value)
    {
        maxPartitionFetchBytes = value;
        return this;
    }

    @NotNull
    public String getTableDescriptionSupplier()
    {
        return tableDescriptionSupplier;
    }

    @Config("kafka.table-description-supplier")
    public KafkaConnectorConfig setTableDescriptionSupplier(String value)
    {
        tableDescriptionSupplier = value;
        return this;
    }

    @NotNull
    public String getClusterMetadataSupplier()
    {
        return clusterMetadataSupplier;
    }

    @Config("kafka.cluster-metadata-supplier")
    public KafkaConnectorConfig setClusterMetadataSupplier(String value)
    {
        clusterMetadataSupplier = value;
        return this;
    }

    public boolean isHideInternalColumns()
    {
        return hideInternalColumns;
    }

    @Config("kafka.hide-internal-columns")
    public KafkaConnectorConfig setHideInternalColumns(boolean value)
    {
        hideInternalColumns = value;
        return this;
    }

    @Pattern(regexp = "PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL")
    public String getSecurityProtocol()
    {
        return securityProtocol;
    }

    @Config("kafka.security-protocol")
    @ConfigDescription("Security protocol of the Kafka client; TLS trusts the CAs of the Java runtime")
    public KafkaConnectorConfig setSecurityProtocol(String value)
    {
        securityProtocol = value;
        return this;
    }

    @NotNull
    public String getSaslMechanism()
    {
        return saslMechanism;
    }

    @Config("kafka.sasl.mechanism")
    public KafkaConnectorConfig setSaslMechanism(String value)
    {
        saslMechanism = value;
        return this;
    }

    public String getSaslJaasConfig()
    {
        return saslJaasConfig;
    }

    @Config("kafka.sasl.jaas.config")
    @ConfigSecuritySensitive
    public KafkaConnectorConfig setSaslJaasConfig(String value)
    {
        saslJaasConfig = value;
        return this;
    }
}
