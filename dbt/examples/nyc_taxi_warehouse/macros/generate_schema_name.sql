{# In prod a model's schema is what it says, silver; in dev it is the user's own, dbt_alice_silver. #}
{% macro generate_schema_name(custom_schema_name, node) %}
  {%- if target.name == 'prod' and custom_schema_name -%}
    {{ custom_schema_name | trim }}
  {%- else -%}
    {{ dbt.default__generate_schema_name(custom_schema_name, node) }}
  {%- endif -%}
{% endmacro %}
