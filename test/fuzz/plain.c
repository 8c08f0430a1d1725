/*
 * plain.c
 *		The program around a target of plain C: libFuzzer's (-DFUZZING), or one that replays
 *		a corpus.  TARGET is the function, NAME its name.
 */
#include "fuzz.h"

extern int	TARGET(const uint8_t *data, size_t size);
extern const char *__asan_default_options(void);
extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* a parser's memory is its caller's to free, all at once; ours here is not freed where a target ends early */
const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}

#ifdef FUZZING
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return TARGET(data, size);
}
#else
int
main(int argc, char **argv)
{
	return argc == 2 && fuzz_replay(NAME, argv[1], TARGET) > 0 ? 0 : 1;
}
#endif
