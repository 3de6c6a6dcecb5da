/* What is in a file of training or test data. */
#ifndef PDT_RUN_DATA_REPORT_H
#define PDT_RUN_DATA_REPORT_H

#include "base/error.h"
#include "base/types.h"

/* Checks the whole file and prints what is in it on standard output, as a table or as JSON.
 * `model`: a directory by whose tokenizer the blocks are cut again; NULL: the Atlas's own where the
 * file was cut by that. Errors: those of pdt_data_check. */
int pdt_data_report(const char *path, const char *model, bool json, pdt_error *err);

#endif
