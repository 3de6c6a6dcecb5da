/* Limits of control groups and of the process, read from trees made here: what Slurm, systemd,
 * Docker with and without namespaces, and plain machines look like. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cgroup.h"
#include "base/memory.h"
#include "scratch.h"

#define MIB (1048576LL)

/* A file, with the folders that it is in. */
static void put(scratch *s, const char *name, const char *text) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s", s->folder, name);
  for (char *slash = path + strlen(s->folder) + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = '\0';
    assert_true(mkdir(path, 0777) == 0 || errno == EEXIST);
    *slash = '/';
  }
  scratch_text(s, name, text);
}

static void put_number(scratch *s, const char *folder, const char *name, long long number) {
  char path[400], text[32];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  snprintf(text, sizeof text, "%lld\n", number);
  put(s, path, text);
}

static const char v2_mount[] =
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "25 22 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

/* A group of version 2. */
static void put_v2(scratch *s, const char *folder, const char *max, long long current,
                   long long cached) {
  char path[400], text[200];
  snprintf(path, sizeof path, "%s/memory.max", folder);
  put(s, path, max);
  put_number(s, folder, "memory.current", current);
  snprintf(path, sizeof path, "%s/memory.stat", folder);
  snprintf(text, sizeof text,
           "anon 5\nfile %lld\ninactive_anon 7\nactive_anon 9\ninactive_file %lld\nactive_file "
           "%lld\nunevictable 0\n",
           cached + 3, cached / 2, cached - cached / 2);
  put(s, path, text);
}

static void no_groups(void **state) {
  const scratch *s = *state;
  assert_true(pdt_cgroup_memory_left(s->folder) == INT64_MAX);
  pdt_cgroup_quota quotas[PDT_MAX_QUOTAS];
  assert_int_equal(pdt_cgroup_quotas(s->folder, quotas), 0);
  assert_true(pdt_available_bytes(s->folder, 3) == INT64_MAX);
}

/* A systemd scope in a slice; the tightest of all levels holds, in turn. */
static void levels_of_v2(void **state) {
  scratch *s = *state;
  const char *const levels[] = {"sys/fs/cgroup", "sys/fs/cgroup/user.slice",
                                "sys/fs/cgroup/user.slice/run a.scope"};
  put(s, "proc/self/mountinfo", v2_mount);
  put(s, "proc/self/cgroup", "0::/user.slice/run a.scope\n");
  for (int tight = -1; tight < 3; tight++) {
    for (int i = 0; i < 3; i++) {
      char max[32] = "max\n";
      if (tight >= 0 && i >= 1)
        snprintf(max, sizeof max, "%lld\n", i == tight ? 100 * MIB : 900 * MIB);
      if (i == 0 && tight != 0) { /* the root of a machine has no such files */
        unlink(scratch_path(s, "sys/fs/cgroup/memory.max"));
        continue;
      }
      if (i == 0) snprintf(max, sizeof max, "%lld\n", 100 * MIB);
      put_v2(s, levels[i], max, 70 * MIB, 30 * MIB);
    }
    if (tight < 0)
      assert_true(pdt_cgroup_memory_left(s->folder) == INT64_MAX);
    else
      assert_int_equal(pdt_cgroup_memory_left(s->folder), 60 * MIB);
  }
}

static void details_of_v2(void **state) {
  scratch *s = *state;
  put(s, "proc/self/mountinfo", v2_mount);
  put(s, "proc/self/cgroup", "0::/job\n");
  put_v2(s, "sys/fs/cgroup/job", "max", 10 * MIB, 0);
  put(s, "sys/fs/cgroup/job/memory.high", "50000000\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 50000000 - 10 * MIB);
  put(s, "sys/fs/cgroup/job/memory.high", "max\n"); /* used up, and more than used up */
  put_v2(s, "sys/fs/cgroup/job", "20971520", 20 * MIB, 0);
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 0);
  put_v2(s, "sys/fs/cgroup/job", "0", 20 * MIB, 0);
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 0);
  put_v2(s, "sys/fs/cgroup/job", "41943040", 20 * MIB, 20 * MIB); /* a cache and nothing else */
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 40 * MIB);
  unlink(scratch_path(s, "sys/fs/cgroup/job/memory.stat"));
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 20 * MIB);
  put(s, "proc/self/cgroup", "0::/job/deeper/than/is/there\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 20 * MIB);
  put(s, "proc/self/cgroup", "nonsense\n\n::\n");
  assert_true(pdt_cgroup_memory_left(s->folder) == INT64_MAX);
}

/* Containers: a namespace whose root is the group, a mount that begins at it, and one that is not
 * on the way at all. */
static void containers(void **state) {
  scratch *s = *state;
  put_v2(s, "sys/fs/cgroup", "104857600", 50 * MIB, 0);
  put(s, "proc/self/mountinfo", v2_mount);
  put(s, "proc/self/cgroup", "0::/\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 50 * MIB);
  put(s, "proc/self/cgroup", "0::/docker/0123\n");
  put(s, "proc/self/mountinfo", "25 22 0:22 /docker/0123 /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 50 * MIB);
  put(s, "proc/self/cgroup", "0::/docker/0123/inner\n");
  put_v2(s, "sys/fs/cgroup/inner", "10485760", 0, 0);
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 10 * MIB);
  put(s, "proc/self/cgroup", "0::/docker/01234\n"); /* another one with a like name */
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 50 * MIB);
  put(s, "proc/self/cgroup", "0::/../elsewhere\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 50 * MIB);
  /* of two mounts the one that shows more */
  put_v2(s, "whole", "20971520", 0, 0);
  put_v2(s, "whole/docker/0123", "max", 0, 0);
  put(s, "proc/self/cgroup", "0::/docker/0123\n");
  put(s, "proc/self/mountinfo",
      "25 22 0:22 /docker/0123 /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
      "26 22 0:22 / /whole ro - cgroup2 cgroup rw\n"
      "27 22 0:22 /docker/01 /nowhere ro - cgroup2 cgroup rw\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 20 * MIB);
}

/* Slurm's steps in version 1, with a hybrid tree beside it, mounted at a place with a space. */
static void version_1(void **state) {
  scratch *s = *state;
  const char *step = "sys/fs/my cgroups/memory/slurm/uid_0/job_7/step_0";
  put(s, "proc/self/mountinfo",
      "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
      "32 31 0:29 / /sys/fs/my\\040cgroups/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "35 31 0:32 / /sys/fs/my\\040cgroups/memory rw shared:1 master:2 - cgroup cgroup rw,memory\n"
      "41 31 0:38 / /sys/fs/my\\040cgroups/unified rw - cgroup2 cgroup2 rw\n");
  put(s, "proc/self/cgroup",
      "9:name=systemd:/\n4:memory:/slurm/uid_0/job_7/step_0\n2:cpu,cpuacct:/slurm/job_7\n0::/\n");
  put(s, "sys/fs/my cgroups/unified/cgroup.procs", "");
  put_number(s, "sys/fs/my cgroups/memory", "memory.limit_in_bytes", 9223372036854771712);
  put_number(s, "sys/fs/my cgroups/memory", "memory.usage_in_bytes", 12345);
  put_number(s, step, "memory.limit_in_bytes", 9223372036854771712);
  put_number(s, step, "memory.usage_in_bytes", 80 * MIB);
  assert_true(pdt_cgroup_memory_left(s->folder) == INT64_MAX);
  const char *job = "sys/fs/my cgroups/memory/slurm/uid_0/job_7";
  put_number(s, job, "memory.limit_in_bytes", 100 * MIB);
  put_number(s, job, "memory.usage_in_bytes", 80 * MIB);
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 20 * MIB);
  put(s, "sys/fs/my cgroups/memory/slurm/uid_0/job_7/memory.stat",
      "cache 1\ninactive_file 1\nactive_file 1\ntotal_cache 5\ntotal_inactive_file 31457280\n"
      "total_active_file 10485760\n");
  assert_int_equal(pdt_cgroup_memory_left(s->folder), 60 * MIB);
}

static void processor_quotas(void **state) {
  scratch *s = *state;
  pdt_cgroup_quota q[PDT_MAX_QUOTAS];
  put(s, "proc/self/mountinfo",
      "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
      "25 22 0:22 / /cg/unified rw - cgroup2 cgroup2 rw\n");
  put(s, "proc/self/cgroup", "2:cpu,cpuacct:/a/b\n0::/x/y\n");
  put(s, "cg/unified/x/cpu.max", "max 100000\n");
  put(s, "cg/unified/x/y/cpu.max", "150000 100000\n");
  put_number(s, "cg/cpu", "cpu.cfs_quota_us", -1);
  put_number(s, "cg/cpu", "cpu.cfs_period_us", 100000);
  put_number(s, "cg/cpu/a", "cpu.cfs_quota_us", 400000);
  put_number(s, "cg/cpu/a", "cpu.cfs_period_us", 100000);
  put_number(s, "cg/cpu/a/b", "cpu.cfs_quota_us", -1);
  put_number(s, "cg/cpu/a/b", "cpu.cfs_period_us", 100000);
  assert_int_equal(pdt_cgroup_quotas(s->folder, q), 2);
  assert_true(q[0].processors == 1.5 && q[1].processors == 4 && q[0].group != q[1].group);
  put(s, "proc/self/cgroup", "2:cpu,cpuacct:/a\n");
  uint64_t group = q[1].group;
  assert_int_equal(pdt_cgroup_quotas(s->folder, q), 1);
  assert_true(q[0].group == group); /* the same from wherever below it one looks */
}

/* Deeper than is kept: the least ones are. */
static void many_quotas(void **state) {
  scratch *s = *state;
  pdt_cgroup_quota q[PDT_MAX_QUOTAS];
  char folder[300] = "cg", line[300] = "0::";
  put(s, "proc/self/mountinfo", "25 22 0:22 / /cg rw - cgroup2 cgroup2 rw\n");
  for (int i = 1; i <= 12; i++) {
    char path[400], text[64];
    snprintf(folder + strlen(folder), 16, "/g%d", i);
    snprintf(line + strlen(line), 16, "/g%d", i);
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    snprintf(text, sizeof text, "%d 1000\n", (i % 2 ? i : 13 - i) * 1000);
    put(s, path, text);
  }
  put(s, "proc/self/cgroup", line);
  assert_int_equal(pdt_cgroup_quotas(s->folder, q), PDT_MAX_QUOTAS);
  double most = 0;
  for (int i = 0; i < PDT_MAX_QUOTAS; i++) most = q[i].processors > most ? q[i].processors : most;
  assert_true(most < 9);
}

static void of_the_process(void **state) {
  scratch *s = *state;
  put(s, "proc/meminfo",
      "MemTotal:  100000 kB\nMemAvailable:  81920 kB\nCommitLimit: 40960 kB\n"
      "Committed_AS:    20480 kB\n");
  assert_int_equal(pdt_available_bytes(s->folder, 1), 80 * MIB);
  assert_int_equal(pdt_available_bytes(s->folder, 4), 20 * MIB);
  put(s, "proc/sys/vm/overcommit_memory", "2\n");
  assert_int_equal(pdt_available_bytes(s->folder, 2), 10 * MIB);
  put(s, "proc/sys/vm/overcommit_memory", "0\n");
  put(s, "proc/self/status", "Name:\tpdt\nVmSize:\t  30720 kB\nVmData:\t 10240 kB\n");
  const char *limits = "Limit                     Soft Limit           Hard Limit      Units\n"
                       "Max data size             %s   unlimited     bytes\n"
                       "Max address space         %s   unlimited     bytes\n";
  char text[400];
  snprintf(text, sizeof text, limits, "unlimited", "unlimited");
  put(s, "proc/self/limits", text);
  assert_int_equal(pdt_available_bytes(s->folder, 2), 40 * MIB);
  snprintf(text, sizeof text, limits, "unlimited", "52428800");
  put(s, "proc/self/limits", text); /* its own: shared with nobody */
  assert_int_equal(pdt_available_bytes(s->folder, 2), 20 * MIB);
  snprintf(text, sizeof text, limits, "15728640", "52428800");
  put(s, "proc/self/limits", text);
  assert_int_equal(pdt_available_bytes(s->folder, 2), 5 * MIB);
  snprintf(text, sizeof text, limits, "1048576", "unlimited");
  put(s, "proc/self/limits", text);
  assert_int_equal(pdt_available_bytes(s->folder, 2), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(no_groups, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(levels_of_v2, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(details_of_v2, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(containers, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(version_1, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(processor_quotas, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(many_quotas, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(of_the_process, scratch_setup, scratch_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
