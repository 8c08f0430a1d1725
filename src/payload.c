/*
 * payload.c
 *		How long the text of a payload is, without making it.
 *
 * A number of a few bytes may have a text of 147 kB, so that the size of a jsonb says
 * nothing about that of its text.  Whoever makes a text asks here first; what is
 * too long is never made.
 */
#include "msgsys.h"

#include "payload.h"

#include "miscadmin.h"
#include "utils/numeric.h"

/* How a numeric is stored (numeric.c): a short header, or a long one. */
#define NUMERIC_SIGN_BITS		0xC000
#define NUMERIC_IS_SHORT		0x8000
#define SHORT_NEGATIVE			0x2000
#define SHORT_SCALE(header)		(((header) & 0x1F80) >> 7)
#define SHORT_WEIGHT(header)	((((header) & 0x0040) ? ~0x003F : 0) | ((header) & 0x003F))
#define LONG_NEGATIVE			0x4000
#define LONG_SCALE(header)		((header) & 0x3FFF)
#define DIGITS_PER_GROUP		4

#define MOST_PER_BYTE	6		/* \u001f */

/* The length of a number as numeric_out() writes it. */
static size_t
number_size(const char *start, size_t length)
{
	uint16		header;
	int16		weight;
	int16		first;
	int			scale;
	bool		negative;
	size_t		used;
	size_t		size;

	/* in a jsonb, a numeric may be stored with either header of a varlena */
	used = VARATT_IS_1B(start) ? VARHDRSZ_SHORT : VARHDRSZ;
	length = Min(length, VARSIZE_ANY(start));
	memcpy(&header, start + used, sizeof(header));
	used += sizeof(header);
	if ((header & NUMERIC_SIGN_BITS) == NUMERIC_SIGN_BITS)
		return sizeof("-Infinity");
	if (header & NUMERIC_IS_SHORT)
	{
		negative = (header & SHORT_NEGATIVE) != 0;
		scale = SHORT_SCALE(header);
		weight = SHORT_WEIGHT(header);
	}
	else
	{
		negative = (header & NUMERIC_SIGN_BITS) == LONG_NEGATIVE;
		scale = LONG_SCALE(header);
		memcpy(&weight, start + used, sizeof(weight));
		used += sizeof(weight);
	}
	size = negative + (scale > 0 ? 1 + scale : 0);
	if (weight < 0 || length < used + sizeof(int16))
		return size + 1;		/* 0 before the point, or 0 */
	memcpy(&first, start + used, sizeof(first));
	return size + (size_t) weight * DIGITS_PER_GROUP + (first >= 1000 ? 4 : first >= 100 ? 3 : first >= 10 ? 2 : 1);
}

/* The length of a string as escape_json() writes it; or, quickly, no less. */
static size_t
string_size(const char *start, size_t length, bool exact)
{
	size_t		size = length + 2;

	if (!exact)
		return length * MOST_PER_BYTE + 2;
	for (size_t i = 0; i < length; i++)
		switch (start[i])
		{
			case '\b':
			case '\f':
			case '\n':
			case '\r':
			case '\t':
			case '"':
			case '\\':
				size++;
				break;
			default:
				if ((unsigned char) start[i] < ' ')
					size += MOST_PER_BYTE - 1;
		}
	return size;
}

/* The length of a container's text; exact, or no less. */
static size_t
container_size(JsonbContainer *container, bool exact)
{
	int			n = JsonContainerSize(container);
	int			entries = JsonContainerIsObject(container) ? n * 2 : n;
	const char *base = (const char *) &container->children[entries];
	uint32		offset = 0;
	size_t		size = 0;

	check_stack_depth();
	if (!JsonContainerIsScalar(container))
		size = 2 + (n > 1 ? (n - 1) * 2 : 0);
	if (JsonContainerIsObject(container))
		size += n * 2;
	for (int i = 0; i < entries; i++)
	{
		JEntry		entry = container->children[i];
		uint32		length = getJsonbLength(container, i);
		const char *start = base + offset;

		if (JBE_ISSTRING(entry))
			size += string_size(start, length, exact);
		else if (JBE_ISNUMERIC(entry))
			size += number_size(base + INTALIGN(offset), length - (INTALIGN(offset) - offset));
		else if (JBE_ISCONTAINER(entry))
			size += container_size((JsonbContainer *) (base + INTALIGN(offset)), exact);
		else
			size += JBE_ISBOOL_FALSE(entry) ? 5 : 4;
		JBE_ADVANCE_OFFSET(offset, entry);
	}
	return size;
}

/* The bytes of a payload's text. */
size_t
payload_text_size(Jsonb *payload)
{
	return container_size(&payload->root, true);
}

/* Whether a payload's text has at most so many bytes: cheap, where it is clearly so. */
bool
payload_fits(Jsonb *payload, size_t most)
{
	return container_size(&payload->root, false) <= most || payload_text_size(payload) <= most;
}
