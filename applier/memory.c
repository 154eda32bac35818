/*
 * applier/memory.c
 *     Memory that is always there, and text that grows.
 */
#include "memory.h"

#include <stdio.h>

void *
memory_checked(void *pointer)
{
	if (pointer == NULL)
	{
		fputs("pgtrickle: out of memory\n", stderr);
		_Exit(1);
	}
	return pointer;
}

void *
memory_take(size_t size)
{
	return memory_checked(malloc(size > 0 ? size : 1));
}

void *
memory_take_zeroed(size_t size)
{
	return memory_checked(calloc(1, size > 0 ? size : 1));
}

void *
memory_resize(void *pointer, size_t size)
{
	return memory_checked(realloc(pointer, size > 0 ? size : 1));
}

char *
memory_copy_text(const char *text)
{
	return memory_checked(strdup(text));
}

void *
memory_grow_array(void *array, size_t count, size_t *capacity, size_t element_size)
{
	if (count < *capacity)
		return array;
	*capacity = *capacity < 8 ? 8 : *capacity * 2;
	return memory_resize(array, *capacity * element_size);
}

static void
text_reserve(Text *text, size_t more)
{
	size_t needed = text->length + more + 1;

	if (needed <= text->capacity)
		return;
	text->capacity = needed < 64 ? 64 : needed * 2;
	text->data = memory_resize(text->data, text->capacity);
}

void
text_append(Text *text, const char *more)
{
	size_t length = strlen(more);

	text_reserve(text, length);
	memcpy(text->data + text->length, more, length + 1);
	text->length += length;
}

void
text_append_char(Text *text, char more)
{
	char one[2] = {more, '\0'};

	text_append(text, one);
}

void
text_append_format(Text *text, const char *format, ...)
{
	va_list arguments;
	int		length;

	va_start(arguments, format);
	length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);

	text_reserve(text, (size_t) length);
	va_start(arguments, format);
	vsnprintf(text->data + text->length, (size_t) length + 1, format, arguments);
	va_end(arguments);
	text->length += (size_t) length;
}

void
text_append_array_element(Text *text, const char *element)
{
	text_append_char(text, '"');
	for (const char *c = element; *c != '\0'; c++)
	{
		if (*c == '"' || *c == '\\')
			text_append_char(text, '\\');
		text_append_char(text, *c);
	}
	text_append_char(text, '"');
}

void
text_reset(Text *text)
{
	text->length = 0;
	if (text->data != NULL)
		text->data[0] = '\0';
}

void
text_free(Text *text)
{
	free(text->data);
	memset(text, 0, sizeof(*text));
}
