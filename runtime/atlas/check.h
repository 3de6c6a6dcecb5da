/* Is a data file sound, and does one of the Atlas say what its sentences say? */
#ifndef PDT_ATLAS_CHECK_H
#define PDT_ATLAS_CHECK_H

#include "data/check.h"

/* pdt_data_check, of files of the Atlas and of others: the Atlas's texts are parsed and compared
 * with mentions and facts, and those with the split. */
int pdt_atlas_check(const char *path, const pdt_data_tokenizer *given, pdt_data_stats *out,
                    pdt_error *err);

#endif
