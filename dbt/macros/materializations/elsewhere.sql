{#
    dbt/macros/materializations/elsewhere.sql
        Materializations of other streaming databases that have no counterpart here: refused with what to do in their place.
#}
{% materialization source, adapter='postgres', supported_languages=['sql'] %}
  {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": there is no materialization 'source' here - have something write into a table and name it in sources:") -%}
{% endmaterialization %}

{% materialization sink, adapter='postgres', supported_languages=['sql'] %}
  {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": there is no materialization 'sink' here - publish a stream table with pgtrickle.stream_table_to_publication(), to which any client of logical replication can subscribe") -%}
{% endmaterialization %}
