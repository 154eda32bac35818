{#
    dbt/macros/refresh_interval.sql
        refresh_interval: Materialize's refresh strategies as schedules.

    every is a duration.  With aligned_to it has to come at certain moments, so it becomes a cron expression in UTC; that says only what repeats within an hour, a day
    or a week.  at is one moment; cron knows no year, so it comes again a year later, and a warning says so.  on_commit follows at once.  at_creation says whether
    it is filled when it is made (initialize).
#}
{% macro pgtrickle_interval_error(text) %}
  {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": refresh_interval: " ~ text) -%}
{% endmacro %}

{% macro pgtrickle_schedule_of_interval(interval) %}
  {%- if interval is not mapping -%}
    {%- do dbt_pgtrickle.pgtrickle_interval_error("it has to be a dictionary with the keys every, aligned_to, at, at_creation, on_commit") -%}
  {%- endif -%}
  {%- for key in interval if key not in ['every', 'aligned_to', 'at', 'on_commit', 'at_creation'] -%}
    {%- do dbt_pgtrickle.pgtrickle_interval_error("unknown key '" ~ key ~ "' - use every, aligned_to, at, at_creation or on_commit") -%}
  {%- endfor -%}
  {%- if interval.get('on_commit') -%}
    {%- if interval.get('every') or interval.get('at') -%}
      {%- do dbt_pgtrickle.pgtrickle_interval_error("on_commit contradicts every and at") -%}
    {%- endif -%}
    {{ return('continuous') }}
  {%- elif interval.get('at') -%}
    {%- if interval.get('every') -%}
      {%- do dbt_pgtrickle.pgtrickle_interval_error("at and every together are not supported") -%}
    {%- endif -%}
    {%- set moment = dbt_pgtrickle.pgtrickle_moment(interval.at, 'at') -%}
    {%- do exceptions.warn("model " ~ model.name ~ ": refresh_interval.at comes again every year on that day") -%}
    {{ return('CRON_TZ=UTC %d %d %d %d %d *' | format(moment.second, moment.minute, moment.hour, moment.day, moment.month)) }}
  {%- elif not interval.get('every') -%}
    {{ return('manual') }}
  {%- endif -%}
  {%- set parts = modules.re.match('^\\s*(\\d+)\\s*(second|sec|minute|min|hour|hr|day|week|s|m|h|d|w)s?\\s*$', interval.every | string) -%}
  {%- if not parts -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('refresh_interval.every', interval.every, "a number and a unit, like '1 day'") -%}
  {%- endif -%}
  {%- if interval.get('aligned_to') -%}
    {{ return(dbt_pgtrickle.pgtrickle_aligned(parts.group(1) | int, parts.group(2)[0], dbt_pgtrickle.pgtrickle_moment(interval.aligned_to, 'aligned_to'))) }}
  {%- endif -%}
  {{ return(parts.group(1) ~ parts.group(2)[0]) }}
{% endmacro %}

{# A moment in UTC. #}
{% macro pgtrickle_moment(text, key) %}
  {%- set parts = modules.re.match('^\\d{4}-\\d{2}-\\d{2}([ T]\\d{2}:\\d{2}(:\\d{2})?(\\.\\d+)?(Z|[+-]\\d{2}:?\\d{2})?)?$', text | string) -%}
  {%- if not parts -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('refresh_interval.' ~ key, text, "a timestamp like '2026-10-22T10:40:33+00:00'") -%}
  {%- endif -%}
  {%- set moment = modules.datetime.datetime.fromisoformat(text | string | replace('Z', '+00:00')) -%}
  {{ return(moment if moment.tzinfo is none else moment.astimezone(modules.pytz.utc)) }}
{% endmacro %}

{% macro pgtrickle_aligned(count, unit, moment) %}
  {%- if unit == 'd' and count == 1 -%}
    {{ return('CRON_TZ=UTC %d %d %d * * *' | format(moment.second, moment.minute, moment.hour)) }}
  {%- elif unit == 'w' and count == 1 or unit == 'd' and count == 7 -%}
    {{ return('CRON_TZ=UTC %d %d %d * * %d' | format(moment.second, moment.minute, moment.hour, moment.isoweekday() % 7)) }}
  {%- elif unit == 'h' and count < 24 and 24 % count == 0 -%}
    {{ return('CRON_TZ=UTC %d %d %d-23/%d * * *' | format(moment.second, moment.minute, moment.hour % count, count)) }}
  {%- elif unit == 'm' and count < 60 and 60 % count == 0 -%}
    {{ return('CRON_TZ=UTC %d %d-59/%d * * * *' | format(moment.second, moment.minute % count, count)) }}
  {%- endif -%}
  {%- do dbt_pgtrickle.pgtrickle_interval_error("every '" ~ count ~ unit ~ "' with aligned_to cannot be expressed - use a divisor of an hour or a day, a day, a week, or a cron expression as schedule") -%}
{% endmacro %}
