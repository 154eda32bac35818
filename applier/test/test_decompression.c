/*
 * applier/test/test_decompression.c
 *     A compressed stream: read back message by message, cut, damaged, and of more bytes than it may have.
 */
#include "decompression.h"

#include <zstd.h>

#include "memory.h"
#include "testing.h"

#define MESSAGES 300

typedef struct Message
{
	uint8_t *plain;
	size_t	 plain_length;
	uint8_t *sent;
	size_t	 sent_length;
} Message;

/* Short ones that resemble each other, and now and then a long one. */
static Message
plain_message(int number)
{
	Message message = {0};

	message.plain_length = number % 50 == 49 ? 3000000 : 20 + testing_random() % 200;
	message.plain = memory_take(message.plain_length);
	for (size_t i = 0; i < message.plain_length; i++)
		message.plain[i] = (uint8_t) (i % 7 == 0 ? testing_random() : i * 31);
	return message;
}

/* As the sender does it: one frame that never ends, flushed after each message. */
static void
send_all(Message *messages)
{
	ZSTD_CCtx *stream = ZSTD_createCCtx();

	(void) ZSTD_CCtx_setParameter(stream, ZSTD_c_windowLog, 19);
	for (int i = 0; i < MESSAGES; i++)
	{
		Message	   *message = &messages[i];
		ZSTD_inBuffer input = {message->plain, message->plain_length, 0};
		size_t		  capacity = ZSTD_compressBound(message->plain_length) + 64;
		ZSTD_outBuffer output = {memory_take(capacity), capacity, 0};

		CHECK(ZSTD_compressStream2(stream, &output, &input, ZSTD_e_flush) == 0);
		message->sent = output.dst;
		message->sent_length = output.pos;
	}
	ZSTD_freeCCtx(stream);
}

static bool
reads(Decompression *decompression, const Message *message, size_t length)
{
	const uint8_t *batch;
	size_t		   batch_length;
	Error		   error = {0};

	if (!decompression_read(decompression, message->sent, length, &batch, &batch_length, &error))
	{
		CHECK(error.message[0] != '\0');
		return false;
	}
	return batch_length == message->plain_length &&
		   memcmp(batch, message->plain, batch_length) == 0;
}

static void
test_all(const Message *messages)
{
	Decompression *decompression = decompression_create(DECOMPRESSED_BATCH_BYTES_MAX);
	size_t		   plain = 0;
	size_t		   sent = 0;

	for (int i = 0; i < MESSAGES; i++)
	{
		CHECK(reads(decompression, &messages[i], messages[i].sent_length));
		plain += messages[i].plain_length;
		sent += messages[i].sent_length;
	}
	CHECK(sent < plain / 2);
	decompression_free(decompression);
}

static void
test_limit(const Message *messages)
{
	Decompression *decompression = decompression_create(1000000);
	bool		   all = true;

	for (int i = 0; i < 49; i++)
		all = all && reads(decompression, &messages[i], messages[i].sent_length);
	CHECK(all);
	CHECK(!reads(decompression, &messages[49], messages[49].sent_length));
	decompression_free(decompression);
}

/* Another connection begins anew: what came before cannot be referred to. */
static void
test_middle(const Message *messages)
{
	Decompression *decompression = decompression_create(DECOMPRESSED_BATCH_BYTES_MAX);

	CHECK(!reads(decompression, &messages[7], messages[7].sent_length));
	decompression_free(decompression);
}

/* Whatever comes: an error or bytes, never a crash; what is cut is not what was sent. */
static void
test_damage(Message *messages)
{
	for (int round = 0; round < 2000; round++)
	{
		Decompression *decompression = decompression_create(10000000);
		int			   victim = (int) (testing_random() % 49);
		bool		   is_cut = round % 2 == 0;
		size_t		   at;

		for (int i = 0; i < victim; i++)
			(void) reads(decompression, &messages[i], messages[i].sent_length);
		at = testing_random() % messages[victim].sent_length;
		if (is_cut)
			CHECK(!reads(decompression, &messages[victim], at));
		else
		{
			uint8_t before = messages[victim].sent[at];

			messages[victim].sent[at] = (uint8_t) testing_random();
			(void) reads(decompression, &messages[victim], messages[victim].sent_length);
			messages[victim].sent[at] = before;
		}
		for (int i = victim + 1; i < victim + 5; i++)
			(void) reads(decompression, &messages[i], messages[i].sent_length);
		decompression_free(decompression);
	}
}

int
main(void)
{
	Message *messages = memory_take(MESSAGES * sizeof(Message));

	for (int i = 0; i < MESSAGES; i++)
		messages[i] = plain_message(i);
	send_all(messages);
	test_all(messages);
	test_limit(messages);
	test_middle(messages);
	test_damage(messages);
	for (int i = 0; i < MESSAGES; i++)
	{
		free(messages[i].plain);
		free(messages[i].sent);
	}
	free(messages);
	return testing_done("decompression");
}
