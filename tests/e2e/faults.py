"""What goes wrong with the demo's sources: files, messages and changes that a pipeline has to cope with."""

from __future__ import annotations

import json

HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,"
    "tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
GOOD_FLIGHTS = [
    "2014,1,1,600,555,5,815,800,15,UA,9001,N14228,EWR,IAH,227,1400,5,55,2014-01-01T10:00:00Z",
    "2014,1,1,601,555,6,816,800,16,UA,9002,N14228,EWR,IAH,227,1400,5,55,2014-01-01T10:00:00Z",
    "2014,1,1,NA,700,NA,NA,900,NA,AA,9003,NA,JFK,MIA,NA,1089,7,0,2014-01-01T12:00:00Z",
]
"""The first is just on time, the second just not, the third is cancelled."""
BAD_FLIGHTS = {
    "2014,1,2,600,555": "not CSV with 19 columns",
    "2014,1,2,600,555,5,815,800,15,,9004,N14228,EWR,IAH,227,1400,5,55,2014-01-02T10:00:00Z": "no carrier",
    "2014,1,2,six,555,5,815,800,15,UA,9005,N14228,EWR,IAH,227,1400,5,55,2014-01-02T10:00:00Z": (
        "dep_time is no whole number"
    ),
    "2014,2,30,600,555,5,815,800,15,UA,9006,N14228,EWR,IAH,227,1400,5,55,2014-03-02T10:00:00Z": (
        "year, month and day are no date"
    ),
}
"""Lines of a file of flights, and why each is refused."""

_WEATHER = {"origin": "EWR", "year": 2014, "month": 1, "day": 1, "hour": 5, "temp": 30.02}
BAD_WEATHER = {'{"origin": "EWR", "year": 20': "not JSON"}
WEATHER_LINES = [json.dumps({**_WEATHER, "time_hour": "2014-01-01T10:00:00Z"}), *BAD_WEATHER]

BAD_FILES = {
    "flights/flights/2014-02.csv": b"when,who\n2014-02-01,UA\n",
    "flights/airports/more.csv": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
}
FILES = {
    "flights/flights/2014-01.csv": "\n".join([HEADER, *GOOD_FLIGHTS, *BAD_FLIGHTS, ""]).encode(),
    "flights/weather/2014-01.jsonl": "\n".join([*WEATHER_LINES, ""]).encode(),
    **BAD_FILES,
}
"""What lands in the raw bucket between two runs."""

_EVENT = {
    "event_id": 10**12, "order_id": 1, "branch_id": 1, "customer_id": 1, "amount": 1.5, "status": "NEW",
    "occurred_at": "2024-01-01T00:00:00Z",
}  # fmt: skip
BAD_MESSAGES = {
    b"not JSON at all": "not a JSON object",
    b"\xff\xfe\x00": "not text in UTF-8",
    json.dumps({**_EVENT, "status": "LOST"}).encode(): "status is none of NEW, INTRANSIT, DELIVERED",
    json.dumps({**_EVENT, "amount": -1}).encode(): "amount is below zero",
    json.dumps({k: v for k, v in _EVENT.items() if k != "order_id"}).encode(): "no order_id",
}
"""Messages, and why each is refused."""

REFUSED = {
    "flights": BAD_FLIGHTS,
    "weather": BAD_WEATHER,
    "order_events": {message.decode(errors="replace"): reason for message, reason in BAD_MESSAGES.items()},
}
"""Rows of the tables of the quarantine: text and reason."""

LATE_ORDER = 1
LATE_CHANGE = (
    "UPDATE orders SET amount = amount + 1000, updated_at = updated_at + interval '1 hour'"
    f" WHERE order_id = {LATE_ORDER}"
)
"""A correction of an order that was delivered, and read, long ago."""
