/*
 * sql/35_subqueries.sql
 *     What programs need for subqueries in expressions (delta/sublink.c).
 */

CREATE FUNCTION pgtrickle.only_element(elements anyarray) RETURNS anyelement
	LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF cardinality(elements) > 1 THEN
		RAISE EXCEPTION 'more than one row returned by a subquery used as an expression'
			USING ERRCODE = 'cardinality_violation';
	END IF;
	RETURN elements[1];
END
$$;
COMMENT ON FUNCTION pgtrickle.only_element(anyarray) IS
	'inside of programs: the value of a subquery that must not yield more than one';
