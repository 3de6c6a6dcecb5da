#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool pdt_on_terminal(int descriptor) {
  if (!getenv("OMPI_COMM_WORLD_SIZE")) return isatty(descriptor);
  char link[64], target[64];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)getppid(), descriptor);
  ssize_t n = readlink(link, target, sizeof target - 1);
  if (n < 0) return false;
  target[n] = '\0';
  return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

/* How many bytes at text are one control character (C0 and delete, or C1 in UTF-8); 0 for others.
 */
static size_t control_bytes(const unsigned char *text, size_t bytes) {
  if (*text == '\n' || *text == '\t') return 0;
  if (*text < 0x20 || *text == 0x7F) return 1;
  return bytes > 1 && *text == 0xC2 && text[1] >= 0x80 && text[1] <= 0x9F ? 2 : 0;
}

bool pdt_print_for_terminal(FILE *out, const char *text, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    size_t control = control_bytes((const unsigned char *)text + at, bytes - at);
    if (control ? fputs("\xEF\xBF\xBD", out) == EOF : fputc(text[at], out) == EOF) return false;
    at += control ? control : 1;
  }
  return true;
}

int pdt_terminal_columns(void) {
  struct winsize size;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char *columns = getenv("COLUMNS");
  int n = columns ? atoi(columns) : 0;
  return n > 0 ? n : 80;
}
