# applier/embed_sql.awk
#     Turns statements into C: sql/name.sql becomes `static const char sql_name[] = "..."`.
#
# Comment blocks and blank lines stay out; a line of SQL becomes a line of C, so the text in the server's
# log looks like the file.

function finish()
{
	if (name != "")
		print "\t\"\";\n"
}

FNR == 1 {
	finish()
	name = FILENAME
	sub(/.*\//, "", name)
	sub(/\.sql$/, "", name)
	if (!started++)
		print "/* applier/sql_text.h: made from sql/ by embed_sql.awk */\n"
	print "static const char sql_" name "[] __attribute__((unused)) ="
	in_comment = 0
}

/^\/\*/ { in_comment = 1 }
in_comment { if (/\*\//) in_comment = 0; next }
/^[ \t]*$/ { next }

{
	line = $0
	sub(/;[ \t]*$/, "", line)
	gsub(/\\/, "\\\\", line)
	gsub(/"/, "\\\"", line)
	print "\t\"" line "\\n\""
}

END { finish() }
