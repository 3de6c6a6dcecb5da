/* Batches of rows of sequences, and attention over their pages.
 *
 * Once a forward pass the rows are sorted by the page lists that they see: a prompt's list is one
 * list, however many streams share it, and is read once for all of them. A list is read in pieces,
 * for some rows at a time; what a row gets from its pieces is merged in order. So the order of a
 * row's sums depends on its position and on the length of its prompt, and on nothing beside it. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/backend.h"

/* Results of pieces that are kept at a time: more rows than give so many go one after another.
 * Rows from which on a list's tiles are blocks enough: no results are kept then. Rows of a large
 * tile, at least. Shared memory of a block, at most: of sm_90, and of all devices. */
enum {
  MOST_PLACES = 1 << 13,
  WHOLE_ROWS = 256,
  LARGE_ROWS = 5,
  MOST_SHARED = 227 << 10,
  PLAIN_SHARED = 163 << 10
};

/* A page list that rows of the batch see. */
typedef struct page_list {
  const int32_t *pages; /* the caller's */
  int32_t tokens;       /* most that any row sees of it */
  bool written;         /* a row of the batch is stored in it */
  bool part;            /* it is not all that each of its rows sees */
  bool whole;           /* it is, and one block after another reads it for some rows */
  int32_t at;           /* where it begins in the batch's pages */
  int32_t first, n;     /* its rows: seen[first .. first + n) */
} page_list;

/* Rows whose results are kept at the same time. */
typedef struct slice {
  int32_t first_row, n_rows, first_piece, n_pieces, n_large, places;
  bool whole; /* are any of the pieces? */
} slice;

struct pdt_batch {
  int32_t head_dim, n, max_rows;
  double scale;
  double *inv_freq;        /* device [head_dim / 2] */
  pdt_cuda_buffer rope;    /* device [max_rows, head_dim] */
  pdt_cuda_buffer numbers; /* device: all of the below, as the kernels read them */
  int32_t n_lists, n_slices, n_pieces, pieces_room;
  int32_t tile_rows;      /* of the largest tile */
  page_list *lists;       /* [2 max_rows] */
  int32_t *list_of;       /* [max_rows, 2]: each row's shared and own list, -1: none */
  slice *slices;          /* [max_rows] */
  pdt_cuda_seen *seen;    /* [2 max_rows], list by list */
  int32_t *places;        /* [max_rows, 2] */
  pdt_cuda_piece *pieces; /* [pieces_room] */
  pdt_row_place *rows;    /* [max_rows] */
  /* Where they lie in `numbers`. */
  pdt_cuda_rows on_device;
  pdt_cuda_attention attention;
};

void pdt_cuda_batch_free(pdt_device *dev, pdt_batch *b) {
  if (!b) return;
  pdt_cuda_free(dev, b->inv_freq);
  pdt_cuda_free(dev, b->rope.at);
  pdt_cuda_free(dev, b->numbers.at);
  void *lists[] = {b->lists, b->list_of, b->slices, b->seen, b->places, b->pieces, b->rows};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]);
  free(b);
}

static int new_on_device(pdt_device *dev, pdt_batch *b, const pdt_rotary *rotary, pdt_error *err) {
  pdt_cuda *c = pdt_cuda_of(dev);
  int32_t half = b->head_dim / 2;
  pdt_array angles;
  if (pdt_cuda_alloc(dev, 2 * (int64_t)half, "batch", &angles, err)) return -1;
  b->inv_freq = (double *)(void *)angles.at;
  size_t bytes = (size_t)half * sizeof *b->inv_freq;
  double *stage = pdt_cuda_lend(c, (pdt_bytes)bytes);
  if (stage) {
    memcpy(stage, rotary->inv_freq, bytes);
    pdt_cuda_ok(c, pdt_cuda_transfer(c, b->inv_freq, stage, bytes, cudaMemcpyHostToDevice),
                "batch");
  }
  pdt_cuda_grow(c, &b->rope, (pdt_bytes)b->max_rows * b->head_dim * (pdt_bytes)sizeof(float),
                "batch");
  if (c->failure.code == PDT_ERROR_NONE) return 0;
  if (err) *err = c->failure;
  return -1;
}

int pdt_cuda_batch_new(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                       const pdt_rotary *rotary, pdt_batch **out, pdt_error *err) {
  pdt_batch *b;
  (void)max_positions;
  *out = NULL;
  int32_t queries = pdt_cuda_attention_queries(PDT_CUDA_TILE, PDT_CUDA_TILE);
  if (head_dim > PDT_CUDA_MOST_HEAD ||
      pdt_cuda_attention_shared(head_dim, queries, false) > MOST_SHARED)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "GPU: heads of %d elements are wider than kernels take",
                    head_dim);
  if (PDT_NEW(&b, 1, "batch", err)) return -1;
  b->head_dim = head_dim;
  b->max_rows = max_rows;
  b->scale = rotary->scale;
  if (PDT_NEW(&b->lists, 2 * (int64_t)max_rows, "batch", err) ||
      PDT_NEW(&b->list_of, 2 * (int64_t)max_rows, "batch", err) ||
      PDT_NEW(&b->slices, max_rows, "batch", err) ||
      PDT_NEW(&b->seen, 2 * (int64_t)max_rows, "batch", err) ||
      PDT_NEW(&b->places, 2 * (int64_t)max_rows, "batch", err) ||
      PDT_NEW(&b->rows, max_rows, "batch", err) || new_on_device(dev, b, rotary, err)) {
    pdt_cuda_batch_free(dev, b);
    return -1;
  }
  *out = b;
  return 0;
}

/* The number of the list that begins at `pages`, made longer if need be. part: of what the row
 * sees.
 */
static int32_t note_list(pdt_batch *b, const int32_t *pages, int32_t tokens, bool own, bool part) {
  int32_t i = b->n_lists - 1;
  if (tokens < 1) return -1;
  while (i >= 0 && b->lists[i].pages != pages) i--;
  if (i < 0) {
    i = b->n_lists++;
    b->lists[i] = (page_list){.pages = pages};
  }
  if (tokens > b->lists[i].tokens) b->lists[i].tokens = tokens;
  if (own) b->lists[i].written = true;
  if (part) b->lists[i].part = true;
  b->lists[i].n++;
  return i;
}

static int32_t pieces_of(int32_t tokens) {
  return (tokens + PDT_CUDA_PIECE - 1) / PDT_CUDA_PIECE;
}

static int32_t pages_of(int32_t tokens) {
  return (tokens + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS;
}

static int32_t own_tokens(const pdt_row_place *row) {
  return row->position - row->shared_tokens + 1;
}

static bool is_whole(const pdt_batch *b, const page_list *list) {
  int32_t queries = pdt_cuda_attention_queries(PDT_CUDA_TILE, PDT_CUDA_TILE);
  return !list->part && list->n >= WHOLE_ROWS &&
         pdt_cuda_attention_shared(b->head_dim, queries, true) <= PLAIN_SHARED;
}

/* Which lists there are, and which rows see them. Returns how many pages they have. */
static int32_t sort_rows(pdt_batch *b) {
  int32_t pages = 0, seen = 0;
  b->n_lists = 0;
  for (int32_t r = 0; r < b->n; r++) {
    const pdt_row_place *row = &b->rows[r];
    b->list_of[2 * r] = note_list(b, row->shared_pages, row->shared_tokens, false, true);
    b->list_of[2 * r + 1] = note_list(b, row->pages, own_tokens(row), true, row->shared_tokens > 0);
  }
  for (int32_t i = 0; i < b->n_lists; i++) {
    page_list *list = &b->lists[i];
    list->at = pages;
    list->first = seen;
    list->whole = is_whole(b, list);
    pages += pages_of(list->tokens);
    seen += list->n;
    list->n = 0;
  }
  return pages;
}

static int add_piece(pdt_batch *b, pdt_cuda_piece piece) {
  if (b->n_pieces == b->pieces_room) {
    int32_t room = 2 * b->pieces_room + 256;
    pdt_cuda_piece *more = realloc(b->pieces, (size_t)room * sizeof *more);
    if (!more) return -1;
    b->pieces = more;
    b->pieces_room = room;
  }
  b->pieces[b->n_pieces++] = piece;
  return 0;
}

/* The rows of a tile, from place `first` of the rows that are seen, without where it begins. */
static pdt_cuda_piece tile_of(const pdt_batch *b, const page_list *list, int32_t first, int32_t n) {
  pdt_cuda_piece tile = {.pages = list->at,
                         .first_row = first,
                         .n_rows = n,
                         .low = INT32_MAX,
                         .settled = !list->written,
                         .whole = list->whole};
  for (int32_t i = first; i < first + n; i++) {
    const pdt_cuda_seen *seen = &b->seen[i];
    int32_t low = b->rows[seen->row].position + 1 - seen->before;
    if (seen->seen > tile.end) tile.end = seen->seen;
    if (low < tile.low) tile.low = low;
  }
  return tile;
}

/* A slice's rows see a list from place `begin` to `end` of the list's rows: cuts them into tiles,
 * and the list into pieces; those of large tiles, or of the others. The last tiles have most to
 * read: they come first. */
static int cut_list(pdt_batch *b, const page_list *list, int32_t begin, int32_t end, bool large) {
  for (int32_t i = (end - begin - 1) / PDT_CUDA_TILE; i >= 0 && begin < end; i--) {
    int32_t first = begin + i * PDT_CUDA_TILE, n = end - first;
    if (n > PDT_CUDA_TILE) n = PDT_CUDA_TILE;
    if ((n >= LARGE_ROWS) != large) continue;
    pdt_cuda_piece piece = tile_of(b, list, first, n);
    if (n > b->tile_rows) b->tile_rows = n;
    for (; piece.begin < piece.end; piece.begin += PDT_CUDA_PIECE) {
      if (add_piece(b, piece)) return -1;
      if (piece.whole) break;
    }
  }
  return 0;
}

/* Cuts all lists as a slice's rows see them. */
static int cut_lists(pdt_batch *b, slice *s, int32_t end, bool large) {
  for (int32_t i = 0; i < b->n_lists; i++) {
    const page_list *list = &b->lists[i];
    int32_t from = list->first, to;
    while (from < list->first + list->n && b->seen[from].row < s->first_row) from++;
    for (to = from; to < list->first + list->n && b->seen[to].row < end; to++) continue;
    if (to > from && list->whole) s->whole = true;
    if (cut_list(b, list, from, to, large)) return -1;
  }
  return 0;
}

/* Fills a slice up with pieces of no rows, to a number that stays the same for some steps. */
static int fill_up(pdt_batch *b, const slice *s) {
  int32_t n = b->n_pieces - s->first_piece, grain = 8;
  while (8 * grain < n) grain *= 2;
  for (; n % grain; n++)
    if (add_piece(b, (pdt_cuda_piece){0})) return -1;
  return 0;
}

/* Ends a slice before row `end`: its rows' pieces. */
static int cut_slice(pdt_batch *b, slice *s, int32_t end) {
  s->n_rows = end - s->first_row;
  s->first_piece = b->n_pieces;
  if (cut_lists(b, s, end, true)) return -1;
  s->n_large = b->n_pieces - s->first_piece;
  if (cut_lists(b, s, end, false) || fill_up(b, s)) return -1;
  s->n_pieces = b->n_pieces - s->first_piece;
  return 0;
}

/* Enters what each row sees, and where its results go; then cuts everything into pieces. */
static int plan_pieces(pdt_batch *b) {
  b->n_slices = b->n_pieces = b->tile_rows = 0;
  slice *s = NULL;
  for (int32_t r = 0; r < b->n; r++) {
    const pdt_row_place *row = &b->rows[r];
    int32_t shared = pieces_of(row->shared_tokens), all = shared + pieces_of(own_tokens(row));
    if (b->lists[b->list_of[2 * r + 1]].whole) all = 0;
    if (!s || s->places + all > MOST_PLACES) {
      s = &b->slices[b->n_slices++];
      *s = (slice){.first_row = r};
    }
    b->places[2 * r] = s->places;
    b->places[2 * r + 1] = s->places + all;
    for (int own = 0; own < 2; own++) {
      int32_t i = b->list_of[2 * r + own];
      if (i < 0) continue;
      page_list *list = &b->lists[i];
      b->seen[list->first + list->n++] =
          (pdt_cuda_seen){.row = r,
                          .seen = own ? own_tokens(row) : row->shared_tokens,
                          .place = s->places + (own ? shared : 0),
                          .before = own ? row->shared_tokens : 0};
    }
    s->places += all;
  }
  for (int32_t i = 0; i < b->n_slices; i++)
    if (cut_slice(b, &b->slices[i], i + 1 < b->n_slices ? b->slices[i + 1].first_row : b->n))
      return -1;
  return 0;
}

/* Where the parts of `numbers` begin, in 32-bit numbers: in the same places as long as there is
 * room, so that steps launch the same. */
typedef struct layout {
  int64_t position, page, lane, places, seen, pieces, pages, end;
} layout;

static layout lay_out(const pdt_batch *b, int32_t n_pages) {
  const int64_t rows = b->max_rows, seen = sizeof(pdt_cuda_seen) / sizeof(int32_t),
                piece = sizeof(pdt_cuda_piece) / sizeof(int32_t);
  layout at = {.page = rows, .lane = 2 * rows, .places = 3 * rows, .seen = 5 * rows};
  at.pieces = at.seen + 2 * rows * seen;
  at.pages = at.pieces + b->pieces_room * piece;
  at.end = at.pages + n_pages;
  return at;
}

static void write_numbers(const pdt_batch *b, const layout *at, int32_t *to) {
  for (int32_t r = 0; r < b->n; r++) {
    int32_t own = own_tokens(&b->rows[r]) - 1;
    to[at->position + r] = b->rows[r].position;
    to[at->page + r] = b->rows[r].pages[own / PDT_PAGE_TOKENS];
    to[at->lane + r] = own % PDT_PAGE_TOKENS;
  }
  memcpy(to + at->places, b->places, 2 * (size_t)b->n * sizeof *to);
  int32_t n_seen = 0;
  for (int32_t i = 0; i < b->n_lists; i++) n_seen += b->lists[i].n;
  memcpy(to + at->seen, b->seen, (size_t)n_seen * sizeof *b->seen);
  memcpy(to + at->pieces, b->pieces, (size_t)b->n_pieces * sizeof *b->pieces);
  for (int32_t i = 0; i < b->n_lists; i++)
    memcpy(to + at->pages + b->lists[i].at, b->lists[i].pages,
           (size_t)pages_of(b->lists[i].tokens) * sizeof *to);
}

void pdt_cuda_batch_set(pdt_device *dev, pdt_batch *b, const pdt_row_place *rows, int32_t n) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  b->n = n;
  if (n < 1) return;
  memcpy(b->rows, rows, (size_t)n * sizeof *rows);
  int32_t n_pages = sort_rows(b);
  if (plan_pieces(b)) {
    pdt_fail(&c->failure, PDT_ERROR_MEMORY, "batch: not enough memory to plan %d rows", n);
    return;
  }
  layout at = lay_out(b, n_pages);
  pdt_bytes bytes = at.end * (pdt_bytes)sizeof(int32_t);
  /* With room for more pages, so that it stays where it is. */
  pdt_bytes room = bytes <= b->numbers.bytes ? bytes : 2 * bytes;
  int32_t *device = pdt_cuda_grow(c, &b->numbers, room, "batch"), *stage = pdt_cuda_lend(c, bytes);
  if (!device || !stage) return;
  write_numbers(b, &at, stage);
  pdt_cuda_ok(c, pdt_cuda_transfer(c, device, stage, (size_t)bytes, cudaMemcpyHostToDevice),
              "batch");
  b->on_device = (pdt_cuda_rows){.position = device + at.position,
                                 .page = device + at.page,
                                 .lane = device + at.lane,
                                 .rope = b->rope.at,
                                 .n = n};
  b->attention = (pdt_cuda_attention){.pieces = (pdt_cuda_piece *)(device + at.pieces),
                                      .seen = (pdt_cuda_seen *)(device + at.seen),
                                      .page_lists = device + at.pages,
                                      .places = device + at.places};
  pdt_cuda_ok(c,
              pdt_launch_rope(b->on_device.position, n, b->inv_freq, b->head_dim / 2, b->scale,
                              b->rope.at, &c->queue),
              "rotary embedding");
  if (n <= PDT_CUDA_ROWS) pdt_cuda_hold(c); /* a step; prompts do not come again */
}

pdt_cuda_pages pdt_cuda_pages_at(const pdt_kv_shape *s, float *data, pdt_layer layer) {
  int64_t head = (int64_t)2 * PDT_PAGE_TOKENS * s->head_dim;
  return (pdt_cuda_pages){.base = data ? data + layer * s->heads * head : NULL,
                          .page_elems = pdt_kv_page_elems(s),
                          .head_elems = head,
                          .heads = s->heads,
                          .head_dim = s->head_dim};
}

static pdt_cuda_heads heads_of(const pdt_attention *a) {
  return (pdt_cuda_heads){.n_heads = a->n_heads,
                          .per_kv = a->per_kv,
                          .first = a->first,
                          .q_norm = a->q_norm.at,
                          .k_norm = a->k_norm.at,
                          .eps = a->eps};
}

void pdt_cuda_rotate_and_store(pdt_device *dev, const pdt_batch *b, const pdt_kv_pool *kv,
                               pdt_layer layer, const pdt_attention *a, pdt_array qkv) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (b->n < 1 || !pdt_cuda_begin(dev)) return;
  pdt_cuda_pages pages = pdt_cuda_pages_at(&kv->shape, kv->data.at, layer);
  pdt_cuda_heads heads = heads_of(a);
  pdt_cuda_ok(c, pdt_launch_rotate_and_store(&b->on_device, &pages, &heads, qkv.at, &c->queue),
              "rotation");
}

/* Results of pieces that are kept at a time, in bytes. */
static pdt_bytes results_bytes(int64_t places, int32_t n_heads, int32_t head_dim) {
  return places * n_heads * (2 + head_dim) * (pdt_bytes)sizeof(float);
}

void pdt_cuda_reserve_attention(pdt_cuda *c, const pdt_room *most) {
  if (most->rows < 1 || most->all_heads < 1) return;
  /* A row's two lists end in a piece each that may not be full. */
  int64_t of_row = pieces_of(most->positions) + 1, places = most->rows * of_row;
  if (places > MOST_PLACES) places = of_row > MOST_PLACES ? of_row : MOST_PLACES;
  pdt_cuda_grow(c, &c->attention, results_bytes(places, most->all_heads, most->head_dim),
                "room for attention");
}

void pdt_cuda_attend(pdt_device *dev, const pdt_batch *b, const pdt_kv_pool *kv, pdt_layer layer,
                     const pdt_attention *a, pdt_array qkv, pdt_array out) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (b->n < 1 || !pdt_cuda_begin(dev)) return;
  pdt_cuda_pages pages = pdt_cuda_pages_at(&kv->shape, kv->data.at, layer);
  pdt_cuda_heads heads = heads_of(a);
  for (int32_t i = 0; i < b->n_slices; i++) {
    const slice *s = &b->slices[i];
    pdt_cuda_attention work = b->attention;
    if (s->places > 0) {
      work.room = pdt_cuda_grow(c, &c->attention, results_bytes(s->places, a->n_heads, b->head_dim),
                                "room for attention");
      if (!work.room) return;
    }
    work.pieces += s->first_piece;
    work.n_pieces = s->n_pieces;
    work.n_large = s->n_large;
    work.whole = s->whole;
    work.first_row = s->first_row;
    work.n_rows = s->n_rows;
    work.window = a->window;
    work.queries = pdt_cuda_attention_queries(b->tile_rows, a->per_kv);
    work.passes = (b->tile_rows * a->per_kv + work.queries - 1) / work.queries;
    if ((LARGE_ROWS - 1) * a->per_kv > work.queries) work.n_large = work.n_pieces;
    pdt_cuda_ok(c,
                pdt_launch_attend(&work, &b->on_device, &pages, &heads, qkv.at, out.at, &c->queue),
                "attention");
    if (!work.room) continue;
    const pdt_cuda_norm rows = {.y = out.at, .rows = b->n, .width = a->n_heads * b->head_dim};
    c->pending = (pdt_cuda_pending){.what = PDT_CUDA_MERGE,
                                    .head_dim = b->head_dim,
                                    .stride = rows.width,
                                    .norm = rows,
                                    .merge = work};
    /* The next slice has the room that this one's results are in, and the product that follows
     * reads rows that are no merge's. */
    if ((b->n_slices > 1 || work.whole) && !pdt_cuda_begin(dev)) return;
  }
}
