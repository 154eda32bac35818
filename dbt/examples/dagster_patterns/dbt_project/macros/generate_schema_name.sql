{# A model's schema is what its configuration says, without the target's in front. #}
{% macro generate_schema_name(custom, node) %}{{ custom or target.schema }}{% endmacro %}
