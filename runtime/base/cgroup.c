#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOUNT_ROOT = 3, MOUNT_POINT = 4, MOUNT_FIELDS = 6 }; /* of a line of mountinfo */

/* Is `word` one of a list with commas? */
static bool lists(const char *list, const char *word) {
  size_t length = strlen(word);
  for (const char *at = list; (at = strstr(at, word)); at += length)
    if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) return true;
  return false;
}

/* \040 and the like, as the kernel writes characters that would end a field. */
static void unescape(char *text) {
  char *to = text;
  for (const char *from = text; *from; to++) {
    bool octal = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
                 from[2] <= '7' && from[3] >= '0' && from[3] <= '7';
    *to = octal ? (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0')) : *from;
    from += octal ? 4 : 1;
  }
  *to = '\0';
}

static FILE *open_below(const char *root, const char *path) {
  char whole[PATH_MAX];
  if (snprintf(whole, sizeof whole, "%s%s", root, path) >= (int)sizeof whole) return NULL;
  return fopen(whole, "re");
}

/* The group of this process in the hierarchy of `controller` (NULL: version 2), as the kernel names
 * it; the caller frees. NULL: none. */
static char *group_of(const char *root, const char *controller) {
  FILE *f = open_below(root, "/proc/self/cgroup");
  char *line = NULL, *group = NULL;
  size_t room = 0;
  while (f && !group && getline(&line, &room, f) > 0) {
    line[strcspn(line, "\n")] = '\0'; /* 4:cpu,cpuacct:/a/b, or 0::/a/b */
    char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
    if (!path) continue;
    *path++ = '\0';
    if (controller ? lists(list + 1, controller) : list[1] == '\0') group = strdup(path);
  }
  if (f) fclose(f);
  free(line);
  return group;
}

/* One mounted hierarchy: where it begins (a group) and where that is found. */
typedef struct mount {
  char *line; /* owns the rest */
  char *begin, *at;
} mount;

/* Reads a line of mountinfo; is it the hierarchy asked for? */
static bool read_mount(mount *m, char *line, const char *controller) {
  char *fields[MOUNT_FIELDS], *rest = NULL, *end = strstr(line, " - ");
  if (!end) return false;
  *end = '\0';
  for (int i = 0; i < MOUNT_FIELDS; i++)
    if (!(fields[i] = strtok_r(i ? NULL : line, " ", &rest))) return false;
  const char *type = strtok_r(end + 3, " \n", &rest), *source = strtok_r(NULL, " \n", &rest);
  const char *options = source ? strtok_r(NULL, " \n", &rest) : NULL;
  if (!options || strcmp(type, controller ? "cgroup" : "cgroup2") != 0) return false;
  if (controller && !lists(options, controller)) return false;
  *m = (mount){.line = line, .begin = fields[MOUNT_ROOT], .at = fields[MOUNT_POINT]};
  unescape(m->begin);
  unescape(m->at);
  return true;
}

/* The part of a group's path behind the group where a mount begins; NULL when it is not below. A
 * path that leaves the namespace (/../a) is below nothing that can be seen. */
static const char *part_below(const char *group, const char *begin) {
  size_t length = strcmp(begin, "/") == 0 ? 0 : strlen(begin);
  if (strncmp(group, "/..", 3) == 0 || strncmp(group, begin, length) != 0) return NULL;
  const char *rest = group + length;
  if (strcmp(rest, "/") == 0) return "";
  return *rest == '\0' || *rest == '/' ? rest : NULL;
}

/* The mount that shows most of the way from the group up; of several the one that begins highest.
 * When none shows the group, as in a container that sees a part of the tree only, the first one. */
static bool find_mount(const char *root, const char *controller, const char *group, mount *best) {
  FILE *f = open_below(root, "/proc/self/mountinfo");
  char *line = NULL;
  size_t room = 0;
  *best = (mount){0};
  while (f && getline(&line, &room, f) > 0) {
    mount m;
    if (!read_mount(&m, line, controller)) continue;
    bool shows = part_below(group, m.begin), shown = best->line && part_below(group, best->begin);
    if (best->line && (!shows || (shown && strlen(best->begin) <= strlen(m.begin)))) continue;
    free(best->line);
    *best = m;
    line = NULL; /* it is the mount's now */
    room = 0;
  }
  if (f) fclose(f);
  free(line);
  return best->line;
}

/* Calls visit with the folder of every group from this process's own up. */
static void visit_groups(const char *root, const char *controller,
                         void (*visit)(void *context, const char *folder, bool v2), void *context) {
  char folder[PATH_MAX], *group = group_of(root, controller);
  mount m;
  if (group && find_mount(root, controller, group, &m)) {
    const char *below = part_below(group, m.begin);
    int top = snprintf(folder, sizeof folder, "%s%s", root, m.at);
    int length = snprintf(folder, sizeof folder, "%s%s%s", root, m.at, below ? below : "");
    while (length < (int)sizeof folder) {
      visit(context, folder, !controller);
      char *last = strrchr(folder, '/');
      if (!last || last - folder < top) break;
      *last = '\0';
    }
    free(m.line);
  }
  free(group);
}

/* Reads the first words of a file of a group, by a format with two of them; how many are there. */
static int read_words(const char *folder, const char *name, const char *format, long long *first,
                      long long *second) {
  char path[PATH_MAX];
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return 0;
  FILE *f = fopen(path, "re");
  if (!f) return 0;
  int n = fscanf(f, format, first, second);
  fclose(f);
  return n;
}

/* A limit, INT64_MAX where it is absent, "max", or the number that version 1 has for it. */
static pdt_bytes limit_of(const char *folder, const char *name) {
  long long value, none;
  int n = read_words(folder, name, "%lld %lld", &value, &none);
  return n < 1 || value < 0 || value >= INT64_MAX / 2 ? INT64_MAX : value;
}

/* The sum of two lines of memory.stat; 0 for what is not there. */
static pdt_bytes stat_of(const char *folder, const char *one, const char *other) {
  char path[PATH_MAX], key[64];
  long long value;
  pdt_bytes sum = 0;
  if (snprintf(path, sizeof path, "%s/memory.stat", folder) >= (int)sizeof path) return 0;
  FILE *f = fopen(path, "re");
  if (!f) return 0;
  while (fscanf(f, "%63s %lld", key, &value) == 2)
    if (strcmp(key, one) == 0 || strcmp(key, other) == 0) sum += value;
  fclose(f);
  return sum;
}

static void visit_memory(void *context, const char *folder, bool v2) {
  pdt_bytes *least = context;
  pdt_bytes limit = limit_of(folder, v2 ? "memory.max" : "memory.limit_in_bytes");
  pdt_bytes high = v2 ? limit_of(folder, "memory.high") : INT64_MAX; /* beyond it all slows down */
  if (high < limit) limit = high;
  if (limit == INT64_MAX) return;
  pdt_bytes used = limit_of(folder, v2 ? "memory.current" : "memory.usage_in_bytes");
  pdt_bytes cached = v2 ? stat_of(folder, "inactive_file", "active_file")
                        : stat_of(folder, "total_inactive_file", "total_active_file");
  if (used == INT64_MAX) used = 0;
  used = used > cached ? used - cached : 0;
  pdt_bytes left = limit > used ? limit - used : 0;
  if (left < *least) *least = left;
}

pdt_bytes pdt_cgroup_memory_left(const char *root) {
  pdt_bytes least = INT64_MAX;
  visit_groups(root, NULL, visit_memory, &least);
  visit_groups(root, "memory", visit_memory, &least);
  return least;
}

/* Quotas on their way to the caller. */
typedef struct quotas {
  pdt_cgroup_quota *list;
  int32_t n;
} quotas;

static void visit_quota(void *context, const char *folder, bool v2) {
  quotas *q = context;
  long long quota = -1, period = -1, none;
  struct stat status;
  if (v2) {
    if (read_words(folder, "cpu.max", "%lld %lld", &quota, &period) < 2) return; /* "max" */
  } else if (read_words(folder, "cpu.cfs_quota_us", "%lld %lld", &quota, &none) < 1 ||
             read_words(folder, "cpu.cfs_period_us", "%lld %lld", &period, &none) < 1) {
    return;
  }
  if (quota <= 0 || period <= 0 || stat(folder, &status)) return;
  const pdt_cgroup_quota found = {((uint64_t)status.st_dev << 40) ^ (uint64_t)status.st_ino,
                                  (double)quota / (double)period};
  int32_t at = q->n; /* its place, or that of the largest one */
  if (at == PDT_MAX_QUOTAS) {
    at = 0;
    for (int32_t i = 1; i < q->n; i++)
      if (q->list[i].processors > q->list[at].processors) at = i;
    if (q->list[at].processors <= found.processors) return;
  }
  q->list[at] = found;
  if (at == q->n) q->n++;
}

int32_t pdt_cgroup_quotas(const char *root, pdt_cgroup_quota out[PDT_MAX_QUOTAS]) {
  quotas q = {out, 0};
  visit_groups(root, NULL, visit_quota, &q);
  visit_groups(root, "cpu", visit_quota, &q);
  return q.n;
}
