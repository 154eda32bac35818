# dbt/python/dbt_seconds/__init__.py
#     Lets dbt 1.x understand `period: second` in freshness checks, which it refuses otherwise: it knows minutes, hours and days.
#
# Stream tables are seconds behind, not minutes, and texts about them say so in YAML.  A package of macros cannot teach dbt a word; a Python module
# can.  dbt imports every installed module named dbt_* when it starts (its plug-ins), before it reads a project.  The period is an enumeration, so it gets one
# more member; everything else (the arithmetic by timedelta, artifacts) follows from that.
from dbt.artifacts.resources.types import TimePeriod

plugins = []


def add_period(name):
    if name in TimePeriod.__members__:
        return
    member = str.__new__(TimePeriod, name)
    member._name_ = member._value_ = name
    member._sort_order_ = len(TimePeriod._member_names_)
    member.__objclass__ = TimePeriod
    TimePeriod._member_names_.append(name)
    TimePeriod._member_map_[name] = member
    TimePeriod._value2member_map_[name] = member


add_period("second")
