# Writes trips.csv and zones.csv: made-up trips of July 2023 in the shape of the TLC's files, always the same ones.
# Like the real ones they have a few that end before they begin; the staging layer washes them out.
import csv
import datetime
import random

random.seed(20230701)
ZONES = [(1, "EWR", "Newark Airport", "EWR"), (4, "Manhattan", "Alphabet City", "Yellow Zone"), (7, "Queens", "Astoria", "Boro Zone"),
         (14, "Brooklyn", "Bay Ridge", "Boro Zone"), (18, "Bronx", "Bedford Park", "Boro Zone"), (23, "Staten Island", "Bloomfield", "Boro Zone"),
         (43, "Manhattan", "Central Park", "Yellow Zone"), (132, "Queens", "JFK Airport", "Airports"), (138, "Queens", "LaGuardia Airport", "Airports"),
         (161, "Manhattan", "Midtown Center", "Yellow Zone"), (181, "Brooklyn", "Park Slope", "Boro Zone"), (236, "Manhattan", "Upper East Side North", "Yellow Zone"),
         (264, "Unknown", "N/A", "N/A")]
BUSY = [zone[0] for zone in ZONES for _ in range(12 if zone[1] == "Manhattan" else 4 if zone[3] == "Airports" else 1)]

with open("zones.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["zone_id", "borough", "zone_name", "service_zone"])
    writer.writerows(ZONES)

with open("trips.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["vendor_id", "pickup_at", "dropoff_at", "passenger_count", "trip_distance", "rate_code_id", "store_and_fwd_flag", "pu_location_id",
                     "do_location_id", "payment_type", "fare_amount", "tip_amount", "total_amount", "dt"])
    for number in range(4000):
        pickup = datetime.datetime(2023, 7, 1) + datetime.timedelta(seconds=random.randrange(31 * 86400))
        miles = round(random.lognormvariate(0.7, 0.8), 2)
        minutes = miles * random.uniform(3, 7) + 2
        fare = round(3 + 3.5 * miles, 2)
        tip = round(fare * random.choice([0, 0, 0.15, 0.2, 0.25]), 2)
        dropoff = pickup + datetime.timedelta(minutes=minutes if number % 200 else -minutes)
        writer.writerow([random.choice([1, 2]), pickup, dropoff.replace(microsecond=0), random.choice([1, 1, 1, 2, 3, ""]), min(miles, 60), 1, "N",
                         random.choice(BUSY), random.choice(BUSY), random.choice([1, 1, 2]), fare, tip, round(fare + tip + 3.5, 2), "2023-07"])
