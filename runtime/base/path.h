/* Names of files: taken apart, put together, and whether two of them are of one file. */
#ifndef PDT_BASE_PATH_H
#define PDT_BASE_PATH_H

#include <stdbool.h>

#include "base/error.h"

/* "directory/name", or name alone when directory is empty; freed by the caller. Errors: MEMORY. */
int pdt_path_join(char **out, const char *directory, const char *name, pdt_error *err);

/* The folder that a path lies in, with its slash ("./" where it names none); freed by the caller,
 * NULL without memory. */
char *pdt_path_folder(const char *path);

/* What comes after the last slash. */
const char *pdt_path_name(const char *path);

/* What a path names once symbolic links were followed, be it there or not; freed by the caller.
 * Errors: IO (links that lead to each other), MEMORY. */
int pdt_path_follow(char **out, const char *path, pdt_error *err);

/* Is there anything of that name? A symbolic link that leads nowhere is. Where it cannot be seen
 * (as in a folder that may not be searched), true: opening it tells why. */
bool pdt_path_is_there(const char *path);

/* Do two paths name the same file, by device and inode, symbolic and hard links followed? Of files
 * that are not there: would they be created under the same name in the same folder? Errors: MEMORY,
 * which is told in err alone; the answer is then false. */
bool pdt_same_file(const char *a, const char *b, pdt_error *err);

#endif
