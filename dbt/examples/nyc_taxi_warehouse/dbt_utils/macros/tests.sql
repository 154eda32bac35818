{% test accepted_range(model, column_name, min_value=none, max_value=none) %}
select {{ column_name }} from {{ model }}
where false
{%- if min_value is not none %} or {{ column_name }} < {{ min_value }}{% endif %}
{%- if max_value is not none %} or {{ column_name }} > {{ max_value }}{% endif %}
{% endtest %}

{# On a column the expression goes on behind its name, unless it has that itself; on a model it stands for itself. #}
{% test expression_is_true(model, expression, column_name=none) %}
select 1 from {{ model }} where not ({{ column_name if column_name and not expression.startswith(column_name) else '' }} {{ expression }})
{% endtest %}
