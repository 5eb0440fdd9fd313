"""A definition of a dashboard with one chart of each kind."""

from __future__ import annotations

from pathlib import Path

SHOP = """\
title: Shop
description: What the shop sells.
charts:
  - title: Orders in all
    description: Since the first day.
    data_source: postgres/shop
    sql: |
      SELECT count(*) AS orders FROM orders;
    kind: number
    y: {column: orders, unit: orders, decimals: 0}
  - title: Orders by branch
    data_source: presto
    table: lake.retail.branch_performance
    kind: bar
    x: {column: branch, label: Branch}
    y: {column: average_delivery_hours, label: Delivery, unit: hours, decimals: 1}
    order: -average_delivery_hours
    horizontal: true
  - title: Orders by day
    data_source: presto
    sql: SELECT day, state, orders FROM lake.retail.days
    kind: line
    x: day
    y: orders
    series: state
  - title: All branches
    data_source: presto
    table: lake.retail.branch_performance
    kind: table
    columns: [branch, {column: revenue, unit: EUR}]
    order: [-revenue, branch]
    width: full
"""


def write(folder: Path, text: str = SHOP, name: str = "shop.yaml") -> Path:
    """A file in the folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder
