"""Jupyter: notebooks run on the cluster and use every service, through the path a browser has."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.integration import clients
from tests.integration.notebooks import CellError, Lab
from tests.integration.stack import Stack, wait_until
from tests.integration.web import Web, local_names
from tests.integration.websocket import WebSocket


@pytest.fixture(scope="module")
def web(everything: Stack) -> Iterator[Web]:
    with local_names():
        yield Web(everything)


@pytest.fixture
def lab(web: Web) -> Iterator[Lab]:
    with Lab(web, "erin") as found:
        yield found


def run(lab: Lab, name: str, *cells: str) -> list[str]:
    """Save a notebook with these cells and run it."""
    lab.save(f"{name}.ipynb", cells)
    return [text.strip() for text in lab.run(f"{name}.ipynb")]


def has(stack: Stack, *services: str) -> None:
    absent = sorted(set(services) - set(stack.config))
    if absent:
        pytest.skip(f"this run brings up no {', '.join(absent)}")


# -- notebooks


def test_a_notebook_runs_on_the_cluster(lab: Lab, everything: Stack) -> None:
    has(everything, "spark", "delta_sharing")
    shown = run(
        lab,
        "cluster",
        "import millrace\nspark = millrace.spark('notebook test')\nprint(spark.sparkContext.master)",
        "print(spark.range(1000).selectExpr('sum(id)').first()[0])",
        # Python on the executors, whose host is not this one.
        "import socket\n"
        "hosts = spark.sparkContext.parallelize(range(4), 2).map(lambda i: socket.gethostname()).distinct()\n"
        "print(socket.gethostname() not in hosts.collect())",
        "(spark.range(100).selectExpr('id', 'id % 3 as part', 'id * 1.5 as amount')\n"
        "  .write.format('delta').mode('overwrite').partitionBy('part').save('s3a://lake/notebooks/orders'))",
        "print(spark.read.format('delta').load('s3a://lake/notebooks/orders').where('part = 1').count())",
        "print(sorted(millrace.delta_table('notebooks/orders').to_pandas()['id']) == list(range(100)))",
        "print(spark.sparkContext.applicationId)\nspark.stop()",
    )
    assert shown[0] == "spark://spark:7077"
    assert shown[1:3] == ["499500", "True"]
    assert shown[4:6] == ["33", "True"]

    def listed() -> bool:
        answer = Web(everything).get("spark-history", f"/api/v1/applications/{shown[6]}", user="erin")
        return answer.status_code == 200 and answer.json()["name"] == "notebook test"

    wait_until(listed)


def test_a_notebook_reads_the_other_services(lab: Lab, everything: Stack) -> None:
    with clients.postgres(everything, "shop", "shop_owner") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS public.for_notebooks (n int)")
        connection.execute("TRUNCATE public.for_notebooks")
        connection.execute("INSERT INTO public.for_notebooks VALUES (1), (2), (39)")
    cells = {
        "postgres": "import pandas as pd\n"
        "print(pd.read_sql('select sum(n) s from for_notebooks', millrace.postgres_engine('shop'))['s'][0])",
        "object_store": "from deltalake import write_deltalake\nimport pyarrow as pa\n"
        "write_deltalake(millrace.lake('notebooks/t'), pa.table({'n': [1, 2, 39]}), mode='overwrite',\n"
        "                storage_options=millrace.storage_options())\n"
        "print(millrace.delta_table('notebooks/t').to_pandas()['n'].sum())",
        "presto": "cursor = millrace.presto().cursor()\n"
        "cursor.execute('select count(*) from tpch.tiny.nation')\nprint(cursor.fetchall()[0][0])",
        "kafka": "print(len(millrace.consumer().list_topics(timeout=30).brokers) > 0)",
        "delta_sharing": "millrace.shares().list_shares()\n"
        "print(any(s.name == 'sales' for s in millrace.shares().list_shares()))",
    }
    wanted = {
        "postgres": "42",
        "object_store": "42",
        "presto": "25",
        "kafka": "True",
        "delta_sharing": "True",
    }
    on = [name for name in cells if name in everything.config]
    first, *shown = run(
        lab, "services", "import millrace\nprint(millrace.services())", *(cells[n] for n in on)
    )
    assert set(on) <= set(json.loads(first.replace("'", '"')))
    assert dict(zip(on, shown, strict=True)) == {name: wanted[name] for name in on}


def test_a_notebook_loads_a_share(lab: Lab, everything: Stack) -> None:
    has(everything, "delta_sharing", "object_store")
    shown = run(
        lab,
        "share",
        "import millrace, pyarrow as pa\nfrom deltalake import write_deltalake\n"
        "write_deltalake(millrace.lake('shop/mapped'), pa.table({'n': list(range(50))}), mode='overwrite',\n"
        "                storage_options=millrace.storage_options())",
        "print(millrace.share('sales.shop.mapped')['n'].sum())\n"
        "print(len(millrace.share('sales.shop.mapped', limit=7)))",
        "print(millrace.share('sales.shop.mapped', use_delta_format=True)['n'].sum())",
    )
    assert shown[1:] == ["1225\n7", "1225"]


def test_spark_loads_a_share(lab: Lab, everything: Stack) -> None:
    """By its executors, from the signed addresses of several files, one of them older than a column."""
    has(everything, "delta_sharing", "object_store", "spark")
    *_, shown = run(
        lab,
        "spark share",
        "import millrace, pyarrow as pa\nfrom deltalake import write_deltalake\n"
        "def write(mode, **columns):\n"
        "    write_deltalake(millrace.lake('shop/orders'), pa.table(columns), mode=mode,\n"
        "                    partition_by=['day'],\n"
        "                    schema_mode='overwrite' if mode == 'overwrite' else 'merge',\n"
        "                    storage_options=millrace.storage_options())\n"
        "write('overwrite', n=[1, 2], day=['a', 'b'])\n"
        "write('append', n=[39], day=['a'], note=['new'])",
        "spark = millrace.spark('share test')\nshared = millrace.spark_share('sales.shop.orders')\n"
        "print(sorted(map(tuple, shared.groupBy('day').agg({'n': 'sum', 'note': 'max'})\n"
        "    .selectExpr('day', '`sum(n)`', '`max(note)`').collect())))\n"
        "try:\n    millrace.spark_share('sales.shop.nothing')\n"
        "except Exception as error:\n    print('404' in str(error))\nspark.stop()",
    )
    assert shown.splitlines() == ["[('a', 40, 'new'), ('b', 2, None)]", "True"]


def test_rights_are_those_of_the_settings(lab: Lab, everything: Stack) -> None:
    with pytest.raises(CellError, match="permission denied"):
        run(
            lab,
            "rights",
            "import millrace\nmillrace.postgres('shop').execute('create table public.x (n int)')",
        )
    with pytest.raises(CellError, match="no database 'nothing': there are shop"):
        run(lab, "rights", "import millrace\nmillrace.postgres('nothing')")
    with pytest.raises(CellError, match=r"Access ?Denied"):
        run(lab, "rights", "import millrace\nmillrace.s3().list_objects_v2(Bucket='raw')")


def test_notebooks_reach_nothing_outside(lab: Lab) -> None:
    with pytest.raises(CellError, match=r"OSError|timed out|unreachable"):
        run(lab, "outside", "import socket\nsocket.create_connection(('1.1.1.1', 443), timeout=3)")


# -- files


def test_files_survive_a_replaced_container(lab: Lab, everything: Stack, web: Web) -> None:
    cells = ["x = 'kept'", "print(x)"]
    lab.save("kept.ipynb", cells)
    before = everything.container("jupyter").id
    jupyter = {**everything.config["jupyter"], "cpus": 1.25}
    with everything.changed(jupyter=jupyter):
        everything.up()
        assert everything.container("jupyter").id != before
        with Lab(web, "erin") as again:
            assert again.cells("kept.ipynb") == cells
            assert [text.strip() for text in again.run("kept.ipynb")] == ["", "kept"]
    everything.up()


def test_examples_are_read_only(lab: Lab) -> None:
    names = [entry["name"] for entry in lab.ask("GET", "/api/contents/examples").json()["content"]]
    assert "getting-started.ipynb" in names
    cells = lab.cells("examples/getting-started.ipynb")
    assert any("millrace" in cell for cell in cells)
    content = {"type": "file", "format": "text", "content": "x"}
    answer = lab.ask("PUT", "/api/contents/examples/getting-started.ipynb", json=content)
    assert answer.status_code >= 400
    assert lab.cells("examples/getting-started.ipynb") == cells


# -- who may


def test_the_lab_knows_who_is_there(lab: Lab) -> None:
    assert lab.ask("GET", "/api/me").json()["identity"]["username"] == "erin"


def test_the_lab_does_not_ask_for_news(lab: Lab) -> None:
    """They come from outside, where notebooks reach nothing."""
    path = "/lab/api/settings/@jupyterlab/apputils-extension:notification"
    schema = lab.ask("GET", path).raise_for_status().json()["schema"]
    assert schema["properties"]["fetchNews"]["default"] == "false"


@pytest.mark.parametrize("path", ["/lab", "/api/contents", "/api/kernels", "/api/me"])
def test_the_proxy_lets_engineers_in_only(web: Web, path: str) -> None:
    assert web.get("jupyter", path).status_code == 401
    assert web.get("jupyter", path, user="uma").status_code == 401
    assert web.get("jupyter", path, user="erin").status_code == 200


def test_a_claimed_name_does_not_help(web: Web) -> None:
    answer = web.get("jupyter", "/api/me", user="erin", headers={"X-Forwarded-User": "ada"})
    assert answer.json()["identity"]["username"] == "erin"


def test_kernels_need_the_login_too(web: Web) -> None:
    url = f"wss://{web.authority('jupyter')}/api/kernels/x/channels"
    with pytest.raises(InvalidStatus) as caught, WebSocket(url, ssl=web.context()):
        pass
    assert caught.value.response.status_code == 401


def test_requests_from_other_sites_are_refused(lab: Lab) -> None:
    evil = {"Origin": "https://evil.example", "X-XSRFToken": ""}
    assert lab.ask("POST", "/api/kernels", headers=evil).status_code in (403, 404)
    assert lab.http.post("/api/kernels", headers={}).status_code == 403


ASK = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/run/millrace/tls/ca.crt")
for claim in ({}, {"X-Forwarded-User": "ada"}, {"X-Forwarded-User": "ada", "X-Millrace-Proxy": "x" * 32}):
    for path in ("api/contents", "api/kernels", "api/status"):
        request = urllib.request.Request(f"https://jupyter:8888/{path}", headers=claim)
        try:
            print(urllib.request.urlopen(request, context=context, timeout=120).status)
        except urllib.error.HTTPError as error:
            print(error.code)
"""


def test_other_services_cannot_get_in(everything: Stack) -> None:
    """The sharing server shares a network with it, and may say whatever name it likes."""
    has(everything, "delta_sharing")
    asked = everything.container("delta-sharing").exec_run(["/opt/delta-sharing/bin/python", "-c", ASK])
    assert asked.output.decode().split() == ["403"] * 9
