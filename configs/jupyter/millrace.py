"""Ready connections to the platform's services, for notebooks.

    import millrace

    millrace.services()                      # which there are
    millrace.spark("my job")                 # Spark session on the cluster
    millrace.postgres("shop")                # psycopg connection; postgres_engine() for pandas
    millrace.presto()                        # DB-API connection; presto_engine() for pandas (Trino)
    millrace.s3()                            # boto3 client
    millrace.delta_table("shop/orders")      # deltalake.DeltaTable of the lake
    millrace.lake("shop/orders", "s3a")      # its address for Spark
    millrace.producer(), millrace.consumer("orders")     # confluent-kafka
    millrace.share("sales.shop.orders")      # pandas data frame of a shared table; spark_share() for Spark

Each user of the service has these rights alike: they belong to the service Jupyter.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

# The clients are imported where they are used, after it is known that their service is there: a notebook
# needs few of them, and together they take seconds and hundreds of MiB.
_FILE = Path("/run/millrace/jupyter/connections.json")
_CA = "/run/millrace/tls/ca.crt"


def services() -> list[str]:
    """Names of the services there is a connection to."""
    return sorted(_all())


def connection(service: str) -> dict:
    """Address and credentials of a service, for clients that this module has no function for.

    Raises:
        LookupError: when the service is off in the stack's settings.
    """
    found = _all().get(service)
    if found is None:
        raise LookupError(
            f"{service} is not among this platform's services ({', '.join(services()) or 'none'}): "
            "add its key to the stack's settings and run `pulumi up`"
        )
    return found


def _all() -> dict[str, dict]:
    return json.loads(_FILE.read_text())


def spark(name: str = "notebook", **properties: object):
    """The Spark session of this notebook, on the cluster; ``properties`` use _ for dots in their names.

    The first call decides its properties: stop the session to change them.
    """
    connection("spark")
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name)
    for key, value in properties.items():
        builder = builder.config("spark." + key.removeprefix("spark_").replace("_", "."), str(value))
    return builder.getOrCreate()


def postgres(database: str):
    """A psycopg connection to one of Postgres' databases."""
    about = _database(database)
    import psycopg

    return psycopg.connect(
        host=about["host"],
        port=about["port"],
        dbname=database,
        user=about["user"],
        password=about["password"],
        sslmode="verify-full",
        sslrootcert=_CA,
        application_name="jupyter",
    )


def postgres_engine(database: str):
    """The same as an SQLAlchemy engine, as pandas takes it."""
    _database(database)
    from sqlalchemy import create_engine

    return create_engine("postgresql+psycopg://", creator=lambda: postgres(database))


def _database(name: str) -> dict:
    about = connection("postgres")
    if name not in about["databases"]:
        raise LookupError(f"no database {name!r}: there are {', '.join(about['databases']) or 'none'}")
    return about


def presto(catalog: str | None = None, schema: str | None = None):
    """A DB-API connection to Trino or Presto, whichever runs."""
    about = connection("presto")
    where = {name: about[name] for name in ("host", "port", "user")}
    where |= {"catalog": catalog, "schema": schema, "http_scheme": "https"}
    login = (about["user"], about["password"])
    if about["scheme"] == "presto":
        import prestodb

        made = prestodb.dbapi.connect(**where, auth=prestodb.auth.BasicAuthentication(*login))
        made._http_session.verify = _CA
        return made
    import trino

    return trino.dbapi.connect(**where, auth=trino.auth.BasicAuthentication(*login), verify=_CA)


def presto_engine(catalog: str | None = None, schema: str | None = None):
    """Trino as an SQLAlchemy engine, as pandas takes it."""
    about = connection("presto")
    if about["scheme"] == "presto":
        raise NotImplementedError("SQLAlchemy knows Trino only: use presto() with this engine")
    from sqlalchemy import create_engine

    return create_engine("trino://", creator=lambda: presto(catalog, schema))


def s3():
    """A boto3 client of the object store."""
    about = connection("object_store")
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=about["endpoint"],
        aws_access_key_id=about["access_key"],
        aws_secret_access_key=about["secret_key"],
        region_name=about["region"],
        verify=about["ca"],
        config=Config(**about["client_config"]),
    )


def storage_options() -> dict[str, str]:
    """Options for deltalake, polars and others built on the same library."""
    about = connection("object_store")
    return {
        "aws_endpoint": about["endpoint"],
        "aws_access_key_id": about["access_key"],
        "aws_secret_access_key": about["secret_key"],
        "aws_region": about["region"],
        # Two writers at once: the later one fails instead of hiding the other's commit.
        "aws_conditional_put": "etag",
    }


def lake(path: str = "", scheme: str = "s3") -> str:
    """Address of a path in the lake, for deltalake; with ``scheme="s3a"`` for Spark."""
    return f"{scheme}://{connection('object_store')['bucket']}/{path}"


def delta_table(path: str, **options: object):
    """A Delta table of the lake, without Spark."""
    place, access = lake(path), storage_options()
    from deltalake import DeltaTable

    return DeltaTable(place, storage_options=access, **options)


def kafka(**more: object) -> dict[str, object]:
    """Configuration of a confluent-kafka client."""
    about = connection("kafka")
    return {
        "bootstrap.servers": about["bootstrap"],
        "security.protocol": about["security_protocol"],
        "sasl.mechanism": about["sasl_mechanism"],
        "sasl.username": about["user"],
        "sasl.password": about["password"],
        "ssl.ca.location": _CA,
        **more,
    }


def producer(**more: object):
    """A confluent-kafka producer."""
    settings = kafka(**more)
    from confluent_kafka import Producer

    return Producer(settings)


def consumer(*topics: str, group: str | None = None, **more: object):
    """A confluent-kafka consumer of these topics from their beginning, in a group of this service's."""
    prefix = str(connection("kafka")["group"])
    own = {"group.id": f"{prefix}-{group or 'notebooks'}", "auto.offset.reset": "earliest", **more}
    settings = kafka(**own)
    from confluent_kafka import Consumer

    made = Consumer(settings)
    if topics:
        made.subscribe(list(topics))
    return made


def sharing_profile() -> str:
    """Path of this service's Delta Sharing profile."""
    about = connection("delta_sharing")
    path = Path(tempfile.gettempdir()) / "millrace.share"
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {
                "shareCredentialsVersion": 1,
                "endpoint": about["endpoint"],
                "bearerToken": about["password"],
            }
        )
    )
    return str(path)


def shares():
    """The Delta Sharing client."""
    profile = sharing_profile()
    import delta_sharing

    return delta_sharing.SharingClient(profile)


def share(table: str, **options: object):
    """A shared table as a pandas data frame; ``table`` is ``<share>.<schema>.<table>``."""
    profile = sharing_profile()
    import delta_sharing

    return delta_sharing.load_as_pandas(f"{profile}#{table}", **options)


def spark_share(table: str, limit: int | None = None):
    """A shared table as a data frame of Spark, read by the executors of the present session.

    With ``limit`` so many rows at most.
    """
    profile = sharing_profile()
    connection("spark")
    import spark_share as source
    from pyspark import cloudpickle
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession() or spark()

    # The executors don't have the module.
    cloudpickle.register_pickle_by_value(source)
    session.dataSource.register(source.SharedTable)
    reader = session.read.format("deltaSharing")
    frame = (reader.option("limit", limit) if limit else reader).load(f"{profile}#{table}")
    # To the server it is a hint of which files will do, and those hold more rows.
    return frame if limit is None else frame.limit(limit)
