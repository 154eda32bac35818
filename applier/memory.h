/*
 * applier/memory.h
 *     Memory that is always there, and text that grows.
 *
 * The applier keeps nothing that the server could not give it again, so running out of memory needs
 * no error path of its own: the process says so and leaves, and starts again from the slot.
 */
#ifndef PGTRICKLE_APPLIER_MEMORY_H
#define PGTRICKLE_APPLIER_MEMORY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Like malloc, calloc, realloc and strdup, but do not return without the memory. */
extern void *memory_take(size_t size);
extern void *memory_take_zeroed(size_t size);
extern void *memory_resize(void *pointer, size_t size);
/* For what others have allocated. */
extern void *memory_checked(void *pointer);
extern char *memory_copy_text(const char *text);

/*
 * Makes room for one more element of an array: `count` are in use, *capacity fit.  Returns the
 * (moved) array.
 */
extern void *memory_grow_array(void *array, size_t count, size_t *capacity, size_t element_size);

/* Text under construction; `data` is always NUL-terminated once something was appended. */
typedef struct Text
{
	char  *data;
	size_t length;
	size_t capacity;
} Text;

extern void text_append(Text *text, const char *more);
extern void text_append_char(Text *text, char more);
extern void
text_append_format(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An element of an array literal, in double quotes. */
extern void text_append_array_element(Text *text, const char *element);
extern void text_reset(Text *text);
extern void text_free(Text *text);

#endif /* PGTRICKLE_APPLIER_MEMORY_H */
