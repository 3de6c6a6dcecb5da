#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "run/doctor.h"

enum { CELL = PDT_DOCTOR_TEXT };
static const double most_clock_ms = 1000;

typedef pdt_doctor_finding finding;

/* What must be the same on every rank, or may differ with a word about it. */
typedef struct column {
  const char *title, *key;
  size_t at; /* the text in a finding */
  bool must; /* be the same */
  const char *hint;
} column;

static const column columns[] = {
    {"mpi", "mpi", offsetof(finding, mpi), true, "one installation of MPI for all machines"},
    {"pmix", "pmix", offsetof(finding, pmix), false, "one installation of MPI for all machines"},
    {"kernels", "kernels", offsetof(finding, kernels), false,
     "all ranks use what all of them have: the slowest set"},
    {"gpu", "gpu", offsetof(finding, gpu), false, "--device cuda needs one for every rank"},
    {"build", "build", offsetof(finding, build), true, "the same pdt on every machine"},
    {"program", "program", offsetof(finding, program), true, "the same pdt on every machine"},
    {"model", "model", offsetof(finding, model), true, "the same files on every machine"},
    {"sidecar", "sidecar", offsetof(finding, sidecar), true, "the same files on every machine"},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static const char *text_of(const finding *f, const column *c) {
  return (const char *)f + c->at;
}

/* ---- who differs ---- */

/* Things that are told: of a kind that must not stay, or that are good to know. */
typedef struct told {
  int32_t problems;
  json_t *list; /* of texts, for JSON; NULL: they are printed */
} told;

static void tell(told *t, bool problem, const char *text) {
  char line[1024];
  t->problems += problem;
  snprintf(line, sizeof line, "%s: %s", problem ? "problem" : "note", text);
  if (t->list)
    json_array_append_new(t->list, json_string(line));
  else
    pdt_say(stdout, "%s", line);
}

/* A text that most ranks have, if any has a majority. */
static const char *usual(const finding *all, pdt_rank ranks, const column *c) {
  const char *candidate = text_of(&all[0], c);
  int64_t votes = 0;
  for (pdt_rank r = 0; r < ranks; r++) {
    if (votes == 0) candidate = text_of(&all[r], c);
    votes += strcmp(text_of(&all[r], c), candidate) == 0 ? 1 : -1;
  }
  return candidate;
}

static void tell_odd(told *t, const finding *all, pdt_rank ranks, const column *c) {
  const char *most = usual(all, ranks, c);
  char text[640];
  pdt_rank first = -1, n = 0;
  for (pdt_rank r = 0; r < ranks; r++) {
    if (strcmp(text_of(&all[r], c), most) == 0) continue;
    if (first < 0) first = r;
    n++;
  }
  if (n == 0) return;
  int at = snprintf(text, sizeof text, "rank %d on %s", first, all[first].host);
  if (n > 1) at += snprintf(text + at, sizeof text - (size_t)at, " (and %d more)", n - 1);
  snprintf(text + at, sizeof text - (size_t)at, ": %s: found %s, others have %s (hint: %s)",
           c->title, text_of(&all[first], c), most, c->hint);
  tell(t, c->must, text);
}

/* Is it an interface whose network ends in its machine? "docker0 172.17.0.1" */
static bool is_private(const char *item) {
  static const char *const names[] = {"docker", "virbr", "br-",     "cni",    "veth",
                                      "lxc",    "lxd",   "flannel", "podman", "cali"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strncmp(item, names[i], strlen(names[i])) == 0) return true;
  return false;
}

/* An address that two machines have leads each of them to itself: MPI may wait there for ever. */
static void tell_interfaces(told *t, const finding *all, pdt_rank ranks) {
  for (pdt_rank r = 0; r < ranks; r++) {
    char list[PDT_DOCTOR_LONG_TEXT], text[512], *rest = NULL;
    if (strcmp(all[r].host, all[0].host) == 0) continue;
    snprintf(list, sizeof list, "%s", all[0].interfaces);
    for (char *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
      item += strspn(item, " ");
      const char *address = strchr(item, ' ');
      bool shared = address && strstr(all[r].interfaces, address);
      if (!shared && !is_private(item)) continue;
      snprintf(text, sizeof text,
               "%s: %.60s leads to no other machine%s, and no network was chosen (hint: "
               "launch/mpirun --interface NAME, of one that joins them: %.100s)",
               all[0].host, item, shared ? ": others have the same address" : "",
               all[r].interfaces);
      tell(t, shared, text);
      return;
    }
  }
}

static void tell_all(told *t, const finding *all, pdt_rank ranks, bool chosen) {
  char text[512];
  for (pdt_rank r = 0; r < ranks; r++) {
    if (all[r].problem[0]) {
      snprintf(text, sizeof text, "rank %d on %s: %s", r, all[r].host, all[r].problem);
      tell(t, true, text);
      break; /* the others will have the same */
    }
  }
  for (int i = 0; i < COLUMNS; i++) tell_odd(t, all, ranks, &columns[i]);
  for (pdt_rank r = 0; r < ranks; r++) {
    if (fabs(all[r].clock_ms) <= most_clock_ms) continue;
    snprintf(text, sizeof text,
             "rank %d on %s: its clock is %.1f s from rank 0's (hint: a time service on every "
             "machine)",
             r, all[r].host, all[r].clock_ms / 1000);
    tell(t, false, text);
    break;
  }
  if (!chosen) tell_interfaces(t, all, ranks);
}

/* ---- the table ---- */

enum {
  RANK,
  HOST,
  CORES,
  NUMA,
  MEMORY,
  LIMIT,
  CLOCK,
  FIRST_TEXT,
  CELLS = FIRST_TEXT + COLUMNS + 1
};

static void fill_cells(const finding *f, pdt_rank rank, char cells[CELLS][PDT_DOCTOR_LONG_TEXT]) {
  const size_t room = PDT_DOCTOR_LONG_TEXT;
  snprintf(cells[RANK], room, "%d", rank);
  snprintf(cells[HOST], room, "%s", f->host);
  snprintf(cells[CORES], room, "%d", f->cores);
  snprintf(cells[NUMA], room, "%d", f->numa_nodes);
  snprintf(cells[MEMORY], room, "%.1f", pdt_mebibytes(f->memory) / 1024);
  snprintf(cells[LIMIT], room, "-");
  if (f->limit >= 0) snprintf(cells[LIMIT], room, "%.1f", pdt_mebibytes(f->limit) / 1024);
  snprintf(cells[CLOCK], room, "%+.2f", f->clock_ms);
  for (int i = 0; i < COLUMNS; i++)
    snprintf(cells[FIRST_TEXT + i], room, "%s", text_of(f, &columns[i]));
  snprintf(cells[CELLS - 1], room, "%s", f->interfaces);
}

static const char *title_of(int i) {
  static const char *const titles[] = {"rank", "host", "cores", "numa", "GiB", "limit", "clock ms"};
  if (i == CELLS - 1) return "interfaces";
  return i < FIRST_TEXT ? titles[i] : columns[i - FIRST_TEXT].title;
}

/* Numbers to the right of their columns, texts to the left. */
static void print_line(char cells[CELLS][PDT_DOCTOR_LONG_TEXT], const int width[CELLS]) {
  char line[CELLS * (PDT_DOCTOR_LONG_TEXT + 2)];
  int at = 0;
  for (int i = 0; i < CELLS - 1; i++) {
    bool number = i != HOST && i < FIRST_TEXT;
    at += snprintf(line + at, sizeof line - (size_t)at, "%*s  ", number ? width[i] : -width[i],
                   cells[i]);
  }
  pdt_say(stdout, "%s%s", line, cells[CELLS - 1]);
}

static void print_table(const finding *all, pdt_rank ranks) {
  char cells[CELLS][PDT_DOCTOR_LONG_TEXT];
  int width[CELLS];
  for (int i = 0; i < CELLS; i++) width[i] = (int)strlen(title_of(i));
  for (pdt_rank r = 0; r < ranks; r++) {
    fill_cells(&all[r], r, cells);
    for (int i = 0; i < CELLS; i++)
      if ((int)strlen(cells[i]) > width[i]) width[i] = (int)strlen(cells[i]);
  }
  for (int i = 0; i < CELLS; i++) snprintf(cells[i], sizeof cells[i], "%s", title_of(i));
  print_line(cells, width);
  for (pdt_rank r = 0; r < ranks; r++) {
    fill_cells(&all[r], r, cells);
    print_line(cells, width);
  }
}

/* ---- JSON ---- */

static json_t *json_of(const finding *f, pdt_rank rank) {
  json_t *o = json_pack("{si ss si si sI sf ss}", "rank", rank, "host", f->host, "cores", f->cores,
                        "numa_nodes", f->numa_nodes, "memory_bytes", (json_int_t)f->memory,
                        "clock_ms", f->clock_ms, "interfaces", f->interfaces);
  json_object_set_new(o, "limit_bytes", f->limit >= 0 ? json_integer(f->limit) : json_null());
  for (int i = 0; i < COLUMNS; i++)
    json_object_set_new(o, columns[i].key, json_string(text_of(f, &columns[i])));
  return o;
}

static void print_json(const finding *all, pdt_rank ranks, const pdt_doctor_times *t,
                       const told *what) {
  json_t *list = json_array();
  for (pdt_rank r = 0; r < ranks; r++) json_array_append_new(list, json_of(&all[r], r));
  json_t *o = json_pack("{so s{sf sf sf sf} sO si}", "ranks", list, "microseconds", "barrier",
                        t->barrier, "all_reduce", t->all_reduce, "gather", t->gather, "broadcast",
                        t->broadcast, "told", what->list, "problems", what->problems);
  if (o) (void)pdt_json_print(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
  fputc('\n', stdout);
  json_decref(o);
}

int32_t pdt_doctor_report(const pdt_doctor_finding *all, pdt_rank ranks,
                          const pdt_doctor_times *times, bool chosen, bool json) {
  told t = {.list = json ? json_array() : NULL};
  if (!json) {
    print_table(all, ranks);
    printf("exchanges of %d ranks, us: barrier %.1f, all-reduce of 8 bytes %.1f, gather of 4 KiB "
           "%.1f, broadcast of 4 KiB %.1f\n",
           ranks, times->barrier, times->all_reduce, times->gather, times->broadcast);
  }
  tell_all(&t, all, ranks, chosen);
  if (json) print_json(all, ranks, times, &t);
  if (!json && t.problems == 0) printf("nothing is wrong\n");
  json_decref(t.list);
  return t.problems;
}
