/* The CPU's device: its table and its scratch. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/operations.h"
#include "kernels/host_memory.h"

float *pdt_cpu_scratch(const pdt_device *dev) {
  const pdt_cpu *cpu = dev->state;
  return cpu->scratch + pdt_thread() * cpu->scratch_elems;
}

static void close_device(pdt_device *dev) {
  pdt_cpu *cpu = dev->state;
  if (cpu) {
    free(cpu->scratch);
    free(cpu->in_order);
    pdt_cpu_quantized_free(&cpu->quantized_room);
    pdt_cpu_rounded_free(&cpu->rounded_room);
    pdt_cpu_slab_free(&cpu->slabs);
  }
  free(cpu);
  *dev = (pdt_device){0};
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* Makes the list of a window's pages long enough. */
static int reserve_pages(pdt_cpu *cpu, int32_t notes, pdt_error *err) {
  int32_t n = notes / PDT_PAGE_TOKENS + 1, *pages;
  if (notes == 0 || n <= cpu->n_in_order) return 0;
  if (PDT_NEW(&pages, n, "room for computing", err)) return -1;
  for (int32_t p = 0; p < n; p++) pages[p] = p;
  free(cpu->in_order);
  cpu->in_order = pages;
  cpu->n_in_order = n;
  return 0;
}

static int reserve(pdt_device *dev, const pdt_room *most, pdt_error *err) {
  enum { LINE = PDT_ALIGN_BYTES / sizeof(float) }; /* threads do not share one */
  pdt_cpu *cpu = dev->state;
  int64_t candidates = most->sampled_width * (int64_t)(sizeof(pdt_candidate) / sizeof(float));
  int64_t elems = larger(pdt_cpu_attention_elems(most), pdt_cpu_block_elems(most));
  elems = (larger(elems, candidates) + LINE - 1) / LINE * LINE;
  if (reserve_pages(cpu, most->notes, err)) return -1;
  if (elems <= cpu->scratch_elems) return 0;
  float *scratch;
  if (PDT_NEW(&scratch, dev->threads * elems, "room for computing", err)) return -1;
  free(cpu->scratch);
  cpu->scratch = scratch;
  cpu->scratch_elems = elems;
  return 0;
}

static const pdt_kernels operations = {
    .close = close_device,
    .sync = pdt_host_sync,
    .available = pdt_host_available,
    .reserve = reserve,
    .alloc = pdt_host_alloc,
    .release = pdt_host_release,
    .upload = pdt_host_upload,
    .download = pdt_host_download,
    .copy_rows = pdt_host_copy_rows,
    .move_rows = pdt_host_move_rows,
    .matrix_new = pdt_cpu_matrix_new,
    .matrix_free = pdt_cpu_matrix_free,
    .matrix_pack = pdt_cpu_matrix_pack,
    .rows_new = pdt_host_rows_new,
    .rows_free = pdt_host_rows_free,
    .rows_write = pdt_host_rows_write,
    .rows_read = pdt_host_rows_read,
    .matmul = pdt_cpu_matmul,
    .matmul_bulk = pdt_cpu_matmul,
    .gather_rows = pdt_cpu_gather_rows,
    .rows_product = pdt_cpu_rows_product,
    .norm_rows = pdt_cpu_norm_rows,
    .add_bias = pdt_cpu_add_bias,
    .add = pdt_cpu_add,
    .sum_shares = pdt_cpu_sum_shares,
    .swiglu = pdt_cpu_swiglu,
    .batch_new = pdt_cpu_batch_new,
    .batch_free = pdt_cpu_batch_free,
    .batch_set = pdt_cpu_batch_set,
    .rotate_and_store = pdt_cpu_rotate_and_store,
    .attention = pdt_cpu_attention,
    .conditions_new = pdt_cpu_conditions_new,
    .conditions_free = pdt_cpu_conditions_free,
    .conditions_set = pdt_cpu_conditions_set,
    .store_notes = pdt_cpu_store_notes,
    .note_attention = pdt_cpu_note_attention,
    .add_noted = pdt_cpu_add_noted,
    .adapt = pdt_cpu_adapt,
    .close_blocks = pdt_cpu_close_blocks,
    .plan_read = pdt_cpu_plan_read,
    .argmax_rows = pdt_cpu_argmax_rows,
    .sample_rows = pdt_cpu_sample_rows,
    .logprobs_rows = pdt_cpu_logprobs_rows,
    .chosen_new = pdt_host_chosen_new,
    .chosen_free = pdt_host_chosen_free,
    .choose_rows = pdt_host_choose_rows,
    .gather_chosen = pdt_host_gather_chosen,
    .chosen_read = pdt_host_chosen_read,
};

int pdt_cpu_device_new(pdt_device *dev, pdt_cpu_isa isa, int threads, pdt_error *err) {
  enum { BULK_ROWS = 128 };
  const pdt_cpu_primitives *primitives = pdt_cpu_primitives_of(isa);
  pdt_cpu *cpu;
  *dev = (pdt_device){0};
  if (!primitives)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "kernels: this machine or build does not have '%s'",
                    pdt_cpu_isa_name(isa));
  if (PDT_NEW(&cpu, 1, "kernels", err)) return -1;
  cpu->primitives = primitives;
  cpu->quantized = pdt_cpu_quantized_of(isa);
  *dev = (pdt_device){.ops = &operations,
                      .name = primitives->name,
                      .threads = threads,
                      .host_memory = true,
                      .bulk_rows = BULK_ROWS,
                      .state = cpu};
  return 0;
}
