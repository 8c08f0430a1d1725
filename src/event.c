/*
 * event.c
 *		Patterns of event types, as subscriptions have them.
 *
 * Words stand between dots.  "*" stands for one word, "#" for any number of words,
 * none included: the binding keys of topic exchanges in AMQP 0-9-1.
 */
#include "msgsys.h"

#include "utils/builtins.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(msg_event_matches);

/* What is left of a text of words. */
typedef struct Words
{
	const char *at;				/* NULL: none are left */
	const char *end;
} Words;

/* Length of the first word. */
static size_t
word_length(const Words *words)
{
	const char *dot = memchr(words->at, '.', words->end - words->at);

	return (dot ? dot : words->end) - words->at;
}

/* The words after the first. */
static Words
words_after(Words words)
{
	words.at += word_length(&words);
	words.at = words.at < words.end ? words.at + 1 : NULL;
	return words;
}

static bool
first_is(const Words *words, const char *word)
{
	return word_length(words) == 1 && *words->at == *word;
}

static bool
first_matches(const Words *pattern, const Words *event)
{
	size_t		length = word_length(pattern);

	return first_is(pattern, "*") ||
		(length == word_length(event) && memcmp(pattern->at, event->at, length) == 0);
}

/*
 * Whether an event type matches a pattern.  Where it does not go on, the latest "#" takes one
 * word more; those before it need not, for what they could take it can take too.
 */
static bool
matches(Words pattern, Words event)
{
	Words		after_many = {NULL, NULL};
	Words		many_from = {NULL, NULL};
	bool		many = false;

	while (event.at)
	{
		if (pattern.at && first_is(&pattern, "#"))
		{
			many = true;
			after_many = pattern = words_after(pattern);
			many_from = event;
		}
		else if (pattern.at && first_matches(&pattern, &event))
		{
			pattern = words_after(pattern);
			event = words_after(event);
		}
		else if (many)
		{
			pattern = after_many;
			event = many_from = words_after(many_from);
		}
		else
			return false;
	}
	while (pattern.at && first_is(&pattern, "#"))
		pattern = words_after(pattern);
	return pattern.at == NULL;
}

/*
 * msg_event_matches(pattern text, event_type text) returns boolean
 * The SQL definition has the contract.
 */
Datum
msg_event_matches(PG_FUNCTION_ARGS)
{
	text	   *pattern = PG_GETARG_TEXT_PP(0);
	text	   *event = PG_GETARG_TEXT_PP(1);
	Words		pattern_words = {VARDATA_ANY(pattern), VARDATA_ANY(pattern) + VARSIZE_ANY_EXHDR(pattern)};
	Words		event_words = {VARDATA_ANY(event), VARDATA_ANY(event) + VARSIZE_ANY_EXHDR(event)};

	PG_RETURN_BOOL(matches(pattern_words, event_words));
}
