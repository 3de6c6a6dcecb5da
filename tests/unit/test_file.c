/* Files that appear whole: nothing stays of one that was given up or whose writer was killed,
 * leftovers never stand in the way, and what is replaced hands on its access rights, through links
 * too. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "scratch.h"

typedef int (*opener)(pdt_new_file *file, const char *path, pdt_error *err);
static const opener openers[] = {pdt_new_file_open, pdt_new_file_open_named};
enum { OPENERS = sizeof openers / sizeof *openers };

/* A path in the folder that outlives the next one; freed by the caller. */
static char *path_of(scratch *s, const char *name) {
  char *path;
  assert_int_equal(pdt_path_join(&path, s->folder, name, NULL), 0);
  return path;
}

/* How many files the folder holds. */
static int count(scratch *s) {
  int n = 0;
  DIR *list = opendir(s->folder);
  for (const struct dirent *e; (e = readdir(list));) n += e->d_name[0] != '.';
  closedir(list);
  return n;
}

static void empty(scratch *s) {
  DIR *list = opendir(s->folder);
  for (const struct dirent *e; (e = readdir(list));)
    if (e->d_name[0] != '.') remove(scratch_path(s, e->d_name));
  closedir(list);
}

static void expect_text(const char *path, const char *want) {
  char *text;
  pdt_bytes n;
  assert_int_equal(pdt_file_read(&text, &n, path, 1 << 20, NULL), 0);
  assert_string_equal(text, want);
  free(text);
}

static void write_file(opener open_file, const char *path, const char *text) {
  pdt_new_file file;
  pdt_error err = {0};
  if (open_file(&file, path, &err) ||
      pdt_new_file_write(&file, text, (pdt_bytes)strlen(text), &err) ||
      pdt_new_file_commit(&file, &err))
    fail_msg("%s", err.message);
}

static mode_t mode_of(const char *path) {
  struct stat status;
  assert_int_equal(stat(path, &status), 0);
  return status.st_mode & 07777;
}

static void test_appears_whole(void **state) {
  scratch *s = *state;
  char *path = path_of(s, "f");
  for (int i = 0; i < OPENERS; i++) {
    pdt_new_file file;
    assert_int_equal(openers[i](&file, path, NULL), 0);
    assert_int_equal(pdt_new_file_write(&file, "new", 3, NULL), 0);
    assert_int_equal(access(path, F_OK), -1);
    pdt_new_file_abandon(&file);
    assert_int_equal(count(s), 0);
    write_file(openers[i], path, "first");
    assert_int_equal(openers[i](&file, path, NULL), 0);
    assert_int_equal(pdt_new_file_write(&file, "second", 6, NULL), 0);
    expect_text(path, "first");
    assert_int_equal(pdt_new_file_commit(&file, NULL), 0);
    expect_text(path, "second");
    assert_int_equal(count(s), 1);
    empty(s);
  }
  free(path);
}

/* Whoever is killed while writing leaves nothing, or, with named files, what the next one removes.
 */
static void test_killed(void **state) {
  scratch *s = *state;
  char *path = path_of(s, "f"), *other = path_of(s, "f.1.2.tmp.kept");
  for (int i = 0; i < OPENERS; i++) {
    for (int n = 0; n < 3; n++) {
      pid_t child = fork();
      if (child == 0) {
        pdt_new_file file;
        if (openers[i](&file, path, NULL) == 0 && pdt_new_file_write(&file, "half", 4, NULL) == 0)
          raise(SIGKILL);
        _exit(1);
      }
      int status;
      waitpid(child, &status, 0);
      assert_true(WIFSIGNALED(status));
    }
    if (openers[i] == pdt_new_file_open_named) assert_int_equal(count(s), 1); /* the last one's */
    pdt_temporaries_remove(path);
    assert_int_equal(count(s), 0);
  }
  write_file(pdt_new_file_open, other, "no temporary file");
  pdt_temporaries_remove(path);
  assert_int_equal(count(s), 1);
  empty(s);
  free(other);
  free(path);
}

/* Leftovers of this very process number, also those that nobody may remove, are passed over; files
 * that are being written stay. */
static void test_names_taken(void **state) {
  scratch *s = *state;
  char *path = path_of(s, "f"), name[64];
  pdt_new_file first, second;
  for (int n = 0; n < 150; n++) {
    snprintf(name, sizeof name, "f.%ld.%d.tmp", (long)getpid(), n);
    assert_int_equal(mkdir(scratch_path(s, name), 0700), 0);
  }
  for (int i = 0; i < OPENERS; i++) {
    write_file(openers[i], path, "one");
    write_file(openers[i], path, "two");
    expect_text(path, "two");
    assert_int_equal(count(s), 151);
  }
  assert_int_equal(pdt_new_file_open_named(&first, path, NULL), 0);
  assert_int_equal(pdt_new_file_open_named(&second, path, NULL),
                   0); /* does not remove the first's */
  assert_int_equal(pdt_new_file_write(&first, "1", 1, NULL), 0);
  assert_int_equal(pdt_new_file_commit(&second, NULL), 0);
  assert_int_equal(pdt_new_file_commit(&first, NULL), 0);
  expect_text(path, "1");
  assert_int_equal(count(s), 151);
  empty(s);
  free(path);
}

static void test_modes(void **state) {
  scratch *s = *state;
  char *path = path_of(s, "f");
  mode_t old = umask(022);
  static const mode_t modes[] = {0600, 0640, 0664, 0666, 0755};
  for (int i = 0; i < OPENERS; i++) {
    write_file(openers[i], path, "new");
    assert_int_equal(mode_of(path), 0644);
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
      assert_int_equal(chmod(path, modes[m]), 0);
      write_file(openers[i], path, "again");
      assert_int_equal(mode_of(path), modes[m]);
    }
    empty(s);
    umask(077);
    write_file(openers[i], path, "private");
    assert_int_equal(mode_of(path), 0600);
    umask(022);
    empty(s);
  }
  umask(old);
  free(path);
}

/* Root hands on owner and group; others keep no rights for a group that is not the file's. */
static void test_owner(void **state) {
  scratch *s = *state;
  struct stat status;
  char *path = path_of(s, "f");
  if (geteuid() != 0) skip();
  for (int i = 0; i < OPENERS; i++) {
    write_file(openers[i], path, "theirs");
    assert_int_equal(chown(path, 1234, 4321), 0);
    write_file(openers[i], path, "still theirs");
    assert_int_equal(stat(path, &status), 0);
    assert_true(status.st_uid == 1234 && status.st_gid == 4321);
    empty(s);
  }
  free(path);
}

static void test_links(void **state) {
  scratch *s = *state;
  char *path = path_of(s, "f"), *link = path_of(s, "link"), *chain = path_of(s, "chain");
  char *a = path_of(s, "a"), *b = path_of(s, "b");
  struct stat status;
  pdt_error err = {0};
  pdt_new_file file;
  assert_int_equal(symlink("f", link), 0);
  assert_int_equal(symlink(link, chain), 0);
  assert_int_equal(symlink("b", a), 0);
  assert_int_equal(symlink("a", b), 0);
  for (int i = 0; i < OPENERS; i++) {
    write_file(openers[i], chain, "made"); /* nothing was there */
    expect_text(path, "made");
    write_file(openers[i], link, "replaced");
    expect_text(path, "replaced");
    assert_int_equal(lstat(chain, &status), 0);
    assert_true(S_ISLNK(status.st_mode));
    assert_int_equal(lstat(path, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_int_equal(openers[i](&file, a, &err), -1);
    assert_non_null(strstr(err.message, "Too many levels of symbolic links"));
    remove(path);
  }
  empty(s);
  free(path);
  free(link);
  free(chain);
  free(a);
  free(b);
}

static void test_refused(void **state) {
  scratch *s = *state;
  char long_name[400], *path;
  pdt_new_file file;
  pdt_error err = {0};
  memset(long_name, 'n', sizeof long_name);
  long_name[sizeof long_name - 1] = '\0';
  struct {
    const char *name, *said;
  } cases[] = {{"", "Is a directory"},
               {"no/f", "cannot create: No such file or directory"},
               {"plain/f", "cannot create: Not a directory"},
               {"pipe", "is no regular file"},
               {long_name, "cannot create: File name too long"}};
  scratch_text(s, "plain", "x");
  assert_int_equal(mkfifo(scratch_path(s, "pipe"), 0600), 0);
  for (int i = 0; i < OPENERS; i++) {
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
      path = path_of(s, cases[c].name);
      assert_int_equal(openers[i](&file, path, &err), -1);
      assert_non_null(strstr(err.message, cases[c].said));
      free(path);
    }
    assert_int_equal(openers[i](&file, "", &err), -1);
    assert_int_equal(err.code, PDT_ERROR_USAGE);
    long_name[255] = '\0'; /* as long as a name may be, longer than its temporary could be */
    path = path_of(s, long_name);
    write_file(openers[i], path, "made");
    write_file(openers[i], path, "replaced");
    long_name[255] = 'n';
    assert_int_equal(remove(path), 0);
    free(path);
    assert_int_equal(count(s), 2);
  }
  empty(s);
}

static void test_same_file(void **state) {
  scratch *s = *state;
  char *f = path_of(s, "f"), *hard = path_of(s, "hard"), *soft = path_of(s, "soft");
  char *dot = path_of(s, "./f"), *other = path_of(s, "other"), *dangling = path_of(s, "dangling");
  char *new_dot = path_of(s, "././new"), *new = path_of(s, "new"), *around = path_of(s, "d/../new");
  scratch_text(s, "f", "x");
  scratch_text(s, "other", "x");
  assert_int_equal(link(f, hard), 0);
  assert_int_equal(symlink("hard", soft), 0);
  assert_int_equal(symlink("new", dangling), 0);
  assert_int_equal(mkdir(scratch_path(s, "d"), 0700), 0);
  char *const same[][2] = {{f, f},         {f, hard},     {hard, soft},    {soft, dot},
                           {new, new_dot}, {new, around}, {new, dangling}, {new_dot, dangling}};
  char *const apart[][2] = {{f, other}, {f, new}, {new, f}, {dangling, f}, {other, soft}};
  for (size_t i = 0; i < sizeof same / sizeof *same; i++)
    assert_true(pdt_same_file(same[i][0], same[i][1], NULL));
  for (size_t i = 0; i < sizeof apart / sizeof *apart; i++)
    assert_false(pdt_same_file(apart[i][0], apart[i][1], NULL));
  /* no such folder: neither can be written */
  assert_false(pdt_same_file("no/f", "no/f", NULL));
  empty(s);
  char *const all[] = {f, hard, soft, dot, other, dangling, new_dot, new, around};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void test_nameless(void **state) {
  scratch *s = *state;
  char text[4];
  int fd = pdt_nameless_open(s->folder, NULL);
  assert_true(fd >= 0);
  assert_int_equal(count(s), 0);
  assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
  assert_int_equal(pread(fd, text, 3, 0), 3);
  assert_memory_equal(text, "abc", 3);
  close(fd);
  pdt_error err = {0};
  assert_int_equal(pdt_nameless_open(scratch_path(s, "no"), &err), -1);
  assert_non_null(strstr(err.message, "No such file or directory"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_appears_whole), cmocka_unit_test(test_killed),
      cmocka_unit_test(test_names_taken),   cmocka_unit_test(test_modes),
      cmocka_unit_test(test_owner),         cmocka_unit_test(test_links),
      cmocka_unit_test(test_refused),       cmocka_unit_test(test_same_file),
      cmocka_unit_test(test_nameless)};
  return cmocka_run_group_tests_name("file", tests, scratch_setup, scratch_teardown);
}
