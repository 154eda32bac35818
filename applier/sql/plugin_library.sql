/*
 * applier/sql/plugin_library.sql
 *     Is the output plugin's library where the server looks for libraries?  For superusers only.
 */
SELECT bool_or((pg_catalog.pg_stat_file(
		replace(btrim(folder), '$libdir', config.setting) || '/pgtrickle_decoder.so', true)).size IS NOT NULL)
FROM pg_catalog.pg_config config,
	pg_catalog.string_to_table(pg_catalog.current_setting('dynamic_library_path'), ':') folder
WHERE config.name = 'PKGLIBDIR';
