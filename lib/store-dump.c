/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "crc32c.h"
#include "dev.h"
#include "endian.h"
#include "error.h"
#include "lines.h"
#include "store-dump.h"
#include "store-load.h"

/* The store. */

struct block {
  uint64_t offset;
  bool is_ours;                 /* has the magic */
  bool is_unreadable;
  const char *wrong;            /* NULL: good */
  uint8_t bytes[STORE_BLOCK];
};

struct dump {
  struct lines w;
  struct dev *dev;
  const char *path;
  struct block supers[2], commits[2];
  struct store_super super;     /* which says where all is */
  bool has_super;
  uint64_t durable_seq;         /* UINT64_MAX: not known */
};

static const char cannot_be_read[] = "cannot be read";
static const char behind_the_end[] = "lies behind the end";

/* NULL, or why not. */
static const char *
read_bytes (struct dump *d, void *buf, size_t count, uint64_t offset)
{
  uint64_t size_bytes = d->dev->info.size_bytes;

  if (offset > size_bytes || size_bytes - offset < count)
    return behind_the_end;
  if (dev_pread (d->dev, buf, count, offset, DEV_BUFFERED) == -1)
    return cannot_be_read;
  return NULL;
}

static void
read_super (struct dump *d, unsigned copy, uint64_t offset)
{
  struct block *b = &d->supers[copy];
  struct store_super super;

  memset (b, 0, sizeof *b);
  b->offset = offset;
  b->wrong = read_bytes (d, b->bytes, STORE_BLOCK, offset);
  b->is_unreadable = b->wrong == cannot_be_read;
  if (b->wrong)
    return;
  b->is_ours = memcmp (b->bytes, STORE_MAGIC, STORE_MAGIC_BYTES) == 0;
  b->wrong = store_super_decode (b->bytes, copy, &super);
}

/* Where the first superblock, good or not, says that the store ends, if that
 * can be.
 */
static uint64_t
end_by_first (const struct dump *d)
{
  uint64_t end = get_le64 (d->supers[0].bytes + SUPER_STORE_BYTES);

  return d->supers[0].is_ours && is_aligned (end, STORE_BLOCK) &&
    end >= 2 * STORE_BLOCK && end <= d->dev->info.size_bytes ? end : 0;
}

/* As store-load looks for them, but that a damaged first superblock is believed
 * where the second one is.
 */
static void
read_supers (struct dump *d)
{
  uint64_t end = round_down (d->dev->info.size_bytes, STORE_BLOCK);
  uint64_t named;

  read_super (d, 0, 0);
  named = end_by_first (d);
  if (named == 0 || named > end)
    named = end;
  read_super (d, 1, named - MIN (named, (uint64_t) STORE_BLOCK));
  if (d->supers[1].is_ours || !d->supers[0].wrong ||
      (!d->supers[0].is_ours && !d->supers[0].is_unreadable))
    return;
  for (uint64_t offset = end; offset > STORE_HEAD_BYTES; ) {
    offset -= STORE_BLOCK;
    read_super (d, 1, offset);
    if (!d->supers[1].wrong)
      return;
  }
  read_super (d, 1, named - MIN (named, (uint64_t) STORE_BLOCK));
}

static bool
may_be_store (const struct dump *d)
{
  return d->supers[0].is_ours || d->supers[0].is_unreadable ||
    d->supers[1].is_ours;
}

/* Take the fields of a superblock, though its checksum is wrong, if they make
 * sense.
 */
static bool
believe_super (const struct block *b, unsigned copy, struct store_super *ret)
{
  uint8_t bytes[STORE_BLOCK];

  if (!b->is_ours)
    return false;
  memcpy (bytes, b->bytes, STORE_BLOCK);
  put_le32 (bytes + SUPER_COPY, copy);
  put_le32 (bytes + SUPER_CRC, crc32c (0, bytes, SUPER_CRC));
  return store_super_decode (bytes, copy, ret) == NULL;
}

/* Returns which copy says where all is, -1: none. */
static int
choose_super (struct dump *d)
{
  struct store_super s[2];
  bool good[2];

  for (unsigned i = 0; i < 2; i++)
    good[i] = !d->supers[i].wrong && believe_super (&d->supers[i], i, &s[i]);
  for (unsigned i = 0; i < 2 && !good[0] && !good[1]; i++)
    good[i] = believe_super (&d->supers[i], i, &s[i]);
  if (!good[0] && !good[1])
    return -1;
  d->has_super = true;
  d->super = s[!good[0] || (good[1] && s[1].generation > s[0].generation)];
  return !good[0] || (good[1] && s[1].generation > s[0].generation);
}

/* Superblocks. */

/* What is not zero where all should be. */
static void
put_reserved (struct lines *w, const uint8_t *bytes, size_t begin, size_t end)
{
  while (begin < end) {
    size_t n = 0;
    char name[40];

    while (begin < end && bytes[begin] == 0)
      begin++;
    while (begin + n < end && n < 64 && bytes[begin + n] != 0)
      n++;
    if (n == 0)
      return;
    snprintf (name, sizeof name, "bytes_%zu", begin);
    lines_hex (w, name, bytes + begin, n);
    begin += n;
  }
}

static void
put_section (struct lines *w, const uint8_t *p, unsigned number)
{
  struct line *line = lines_new (w);
  const uint64_t first = get_le64 (p + SECTION_FIRST_SLOT);

  if (w->json) {
    line_append (line, "{\"first_slot\": ");
    line_append_number (line, first);
    line_append (line, ", \"slots\": ");
    line_append_number (line, get_le64 (p + SECTION_NR_SLOTS));
    line_append (line, ", \"first_table\": ");
    line_append_number (line, get_le64 (p + SECTION_TABLE_A));
    line_append (line, ", \"data\": ");
    line_append_number (line, get_le64 (p + SECTION_DATA));
    line_append (line, ", \"second_table\": ");
    line_append_number (line, get_le64 (p + SECTION_TABLE_B));
    line_append (line, "}");
  }
  else
    line_append (line, "%u: from slot %" PRIu64 ", %" PRIu64 " slots; first "
                 "table at %" PRIu64 ", data at %" PRIu64 ", second table at %"
                 PRIu64,
                 number, first, get_le64 (p + SECTION_NR_SLOTS),
                 get_le64 (p + SECTION_TABLE_A), get_le64 (p + SECTION_DATA),
                 get_le64 (p + SECTION_TABLE_B));
  lines_done (w);
}

static void
put_super_fields (struct lines *w, const uint8_t *p)
{
  uint32_t nr_sections = get_le32 (p + SUPER_NR_SECTIONS);

  lines_number (w, "version", get_le32 (p + SUPER_VERSION));
  lines_number (w, "copy", get_le32 (p + SUPER_COPY));
  lines_number (w, "compatible_features", get_le32 (p + SUPER_COMPAT));
  lines_number (w, "read_only_compatible_features",
                get_le32 (p + SUPER_RO_COMPAT));
  lines_number (w, "incompatible_features", get_le32 (p + SUPER_INCOMPAT));
  lines_number (w, "sector_size", get_le32 (p + SUPER_SECTOR_BYTES));
  lines_hex (w, "uuid", p + SUPER_UUID, STORE_UUID_BYTES);
  lines_number (w, "generation", get_le64 (p + SUPER_GENERATION));
  lines_number (w, "store_size", get_le64 (p + SUPER_STORE_BYTES));
  lines_number (w, "backing_size", get_le64 (p + SUPER_BACKING_BYTES));
  lines_number (w, "backing_kind", get_le32 (p + SUPER_BACKING_KIND));
  lines_number (w, "slots_kept", get_le32 (p + SUPER_NR_KEPT));
  lines_number (w, "slots_ready", get_le64 (p + SUPER_NR_READY));
  lines_time (w, "made", get_le64 (p + SUPER_CREATED));
  lines_bytes (w, "backing_id", (const char *) p + SUPER_BACKING_ID,
               STORE_ID_BYTES);
  lines_bytes (w, "backing_path", (const char *) p + SUPER_BACKING_PATH,
               STORE_PATH_BYTES);
  lines_number (w, "backing_inode", get_le64 (p + SUPER_BACKING_INODE));
  lines_time (w, "backing_inode_made", get_le64 (p + SUPER_BACKING_BORN));
  lines_number (w, "backing_inode_made_ns",
                get_le32 (p + SUPER_BACKING_BORN_NS));
  lines_number (w, "number_of_sections", nr_sections);
  lines_begin (w, "sections", '[');
  for (unsigned i = 0; i < MIN (nr_sections, (uint32_t) STORE_SECTIONS_MAX);
       i++)
    put_section (w, p + SUPER_SECTIONS + i * SECTION_BYTES, i);
  lines_end (w, ']');
  put_reserved (w, p, 92, SUPER_CREATED);
  put_reserved (w, p, SUPER_CREATED + 8, SUPER_BACKING_ID);
  put_reserved (w, p, SUPER_BACKING_BORN_NS + 4, SUPER_SECTIONS);
  put_reserved (w, p, SUPER_SECTIONS + STORE_SECTIONS_MAX * SECTION_BYTES,
                SUPER_CRC);
}

static void
put_commit_fields (struct lines *w, const uint8_t *p)
{
  uint32_t nr_stale = get_le32 (p + COMMIT_NR_STALE);

  lines_hex (w, "uuid", p + COMMIT_UUID, STORE_UUID_BYTES);
  lines_number (w, "durable", get_le64 (p + COMMIT_DURABLE));
  lines_number (w, "pid", get_le32 (p + COMMIT_PID));
  lines_number (w, "closed", get_le32 (p + COMMIT_CLEAN));
  lines_time (w, "written", get_le64 (p + COMMIT_TIME));
  lines_number (w, "count", get_le64 (p + COMMIT_COUNT));
  lines_number (w, "number_of_stale_blocks", nr_stale);
  lines_begin (w, "stale_blocks", '[');
  for (unsigned i = 0; i < MIN (nr_stale, (uint32_t) STORE_STALE_MAX); i++) {
    lines_begin (w, NULL, '{');
    lines_number (w, "offset", (uint64_t) get_le32 (p + COMMIT_STALE + 4 * i)
                  * STORE_BLOCK);
    lines_end (w, '}');
  }
  lines_end (w, ']');
  put_reserved (w, p, COMMIT_NR_STALE + 4, COMMIT_STALE);
  put_reserved (w, p, COMMIT_STALE + 4 * STORE_STALE_MAX, COMMIT_CRC);
}

/* Fields are shown where the magic says that they are ours. */
static void
put_blocks (struct lines *w, const char *name, const struct block b[2],
            void (*put_fields) (struct lines *w, const uint8_t *bytes))
{
  lines_begin (w, name, '{');
  for (unsigned copy = 0; copy < 2; copy++) {
    lines_begin (w, copy == 0 ? "first" : "second", '{');
    lines_number (w, "offset", b[copy].offset);
    if (b[copy].wrong)
      lines_problem (w, b[copy].wrong);
    if (b[copy].is_ours)
      put_fields (w, b[copy].bytes);
    lines_end (w, '}');
  }
  lines_end (w, '}');
}

static void
read_commit (struct dump *d, unsigned copy, uint64_t offset)
{
  struct block *b = &d->commits[copy];
  struct store_commit commit;

  b->offset = offset;
  b->wrong = read_bytes (d, b->bytes, COMMIT_BYTES, offset);
  if (b->wrong)
    return;
  b->is_ours = memcmp (b->bytes, STORE_COMMIT_MAGIC, STORE_MAGIC_BYTES) == 0;
  b->wrong = store_commit_decode (b->bytes, d->super.uuid, &commit);
  if (!b->wrong &&
      (d->durable_seq == UINT64_MAX || commit.durable_seq > d->durable_seq))
    d->durable_seq = commit.durable_seq;
}

/* Entries. */

#define TABLE_SECTORS 128       /* are read at a time */
#define TABLE_SLOTS (TABLE_SECTORS * ENTRIES_PER_SECTOR)

struct copies {
  const char *wrong[2];         /* NULL: good */
  struct store_entry e[2];      /* where good */
  bool are_alike;
};

/* A way through all entries.  Slots that are damaged alike, and either in both
 * copies or never used, are one stretch, and one line.
 */
struct walk {
  struct dump *d;
  bool prints;
  uint64_t stretch_first, nr_stretch;
  const char *stretch_wrong[2];
  uint64_t nr[ENTRY_BAD_SLOT + 1], nr_damaged, nr_differ;
  uint8_t bytes[2][TABLE_SECTORS * TABLE_SECTOR_BYTES];
  const char *wrong[2][TABLE_SECTORS];
};

static const char *const state_names[] = {
  [ENTRY_FREE] = "free", [ENTRY_REMAPPED] = "remapped", [ENTRY_LOST] = "lost",
  [ENTRY_ZEROED] = "zeroed", [ENTRY_BAD_SLOT] = "bad_slot",
};

static const char *const cause_names[] = {
  [CAUSE_NONE] = "nothing", [CAUSE_READ_ERROR] = "read_error",
  [CAUSE_WRITE_ERROR] = "write_error", [CAUSE_REWRITE] = "rewrite",
  [CAUSE_SPARE_ERROR] = "spare_error",
};

/* What a reader of the whole table can say of one entry; "": nothing. */
static void
get_remarks (const struct dump *d, const struct store_entry *e,
             struct line *ret)
{
  bool is_claim = e->state != ENTRY_FREE && e->state != ENTRY_BAD_SLOT;
  uint64_t nr_sectors = div_round_up (d->super.backing_bytes,
                                      d->super.sector_bytes);

  line_clear (ret);
  if (is_claim && e->lba.n >= nr_sectors)
    line_append (ret, "behind the end of the disk");
  else if (!is_claim && e->lba.n != 0)
    line_append (ret, "has a sector");
  else if (e->state != ENTRY_REMAPPED && e->data_crc != 0)
    line_append (ret, "has a checksum of data");
  else if (is_claim && d->durable_seq != UINT64_MAX &&
           e->seq > d->durable_seq)
    line_append (ret, "not yet durable");
}

/* A good entry, in the middle of a line. */
static void
append_entry (struct dump *d, struct line *line, const struct store_entry *e)
{
  bool json = d->w.json;
  struct line remarks;

  line_append (line, json ? "\"state\": \"%s\", \"lba\": %" PRIu64
               ", \"seq\": %" PRIu64 ", \"cause\": \"%s\", \"time\": "
               : "%s, sector %" PRIu64 ", seq %" PRIu64 ", %s, ",
               state_names[e->state], e->lba.n, e->seq, cause_names[e->cause]);
  line_append_time (line, e->time_s, json);
  line_append (line, json ? ", \"data_crc\": %" PRIu32
               : ", data CRC %#010" PRIx32, e->data_crc);
  get_remarks (d, e, &remarks);
  if (remarks.nr_bytes > 0)
    line_append (line, json ? ", \"remark\": \"%s\"" : " (%s)", remarks.text);
}

/* e NULL: a slot that was never used. */
static void
append_copy (struct dump *d, struct line *line, unsigned copy,
             const char *wrong, const struct store_entry *e)
{
  line_append (line, d->w.json ? ", \"%s\": {" : "%s: ",
               copy == 0 ? "first" : d->w.json ? "second" : "; second");
  if (wrong)
    line_append (line, d->w.json ? "\"problem\": \"%s\"" : "PROBLEM: %s",
                 wrong);
  else if (e == NULL)
    line_append (line, d->w.json ? "\"state\": \"free\"" : "free");
  else
    append_entry (d, line, e);
  if (d->w.json)
    line_append (line, "}");
}

static void
put_entry (struct dump *d, uint64_t slot, const struct copies *c)
{
  struct line *line = lines_new (&d->w);
  bool json = d->w.json;

  line_append (line, json ? "{\"slot\": %" PRIu64 : "slot %" PRIu64 ": ", slot);
  if (c->are_alike) {
    line_append (line, json ? ", " : "");
    append_entry (d, line, &c->e[0]);
  }
  else {
    line_append (line, json ? "" : "COPIES DIFFER: ");
    append_copy (d, line, 0, c->wrong[0], &c->e[0]);
    append_copy (d, line, 1, c->wrong[1], &c->e[1]);
  }
  line_append (line, json ? "}" : "");
  lines_done (&d->w);
}

static void
end_stretch (struct walk *k)
{
  struct line *line = lines_new (&k->d->w);
  bool json = k->d->w.json;
  uint64_t first = k->stretch_first, nr = k->nr_stretch;

  k->nr_stretch = 0;
  if (nr == 0 || !k->prints)
    return;
  if (json)
    line_append (line, "{\"slot\": %" PRIu64 ", \"count\": %" PRIu64, first,
                 nr);
  else if (nr == 1)
    line_append (line, "slot %" PRIu64 ": ", first);
  else
    line_append (line, "slots %" PRIu64 "-%" PRIu64 ": ", first,
                 first + nr - 1);
  append_copy (k->d, line, 0, k->stretch_wrong[0], NULL);
  append_copy (k->d, line, 1, k->stretch_wrong[1], NULL);
  line_append (line, json ? "}" : "");
  lines_done (&k->d->w);
}

static void
extend_stretch (struct walk *k, uint64_t slot, uint64_t nr,
                const char *const wrong[2])
{
  if (k->nr_stretch > 0 && (k->stretch_wrong[0] != wrong[0] ||
                            k->stretch_wrong[1] != wrong[1]))
    end_stretch (k);
  if (k->nr_stretch == 0) {
    k->stretch_first = slot;
    k->stretch_wrong[0] = wrong[0];
    k->stretch_wrong[1] = wrong[1];
  }
  k->nr_stretch += nr;
}

static void
visit_entry (struct walk *k, uint64_t slot, const struct copies *c)
{
  const struct store_entry *e =
    &c->e[c->wrong[0] || (!c->wrong[1] && c->e[1].seq > c->e[0].seq)];
  struct line remarks;

  k->nr[e->state]++;
  k->nr_differ += !c->are_alike;
  if (!k->prints)
    return;
  get_remarks (k->d, e, &remarks);
  if ((c->wrong[0] || c->wrong[1]) && e->state == ENTRY_FREE && e->seq == 0 &&
      remarks.nr_bytes == 0) {
    extend_stretch (k, slot, 1, c->wrong);
    return;
  }
  end_stretch (k);
  if (e->state != ENTRY_FREE || !c->are_alike || remarks.nr_bytes > 0)
    put_entry (k->d, slot, c);
}

static void
visit_damaged (struct walk *k, uint64_t slot, uint64_t nr,
               const char *const wrong[2])
{
  k->nr_damaged += nr;
  extend_stretch (k, slot, nr, wrong);
}

static void
visit_slot (struct walk *k, uint64_t slot, uint64_t in_chunk)
{
  uint64_t sector = in_chunk / ENTRIES_PER_SECTOR;
  uint64_t at = store_entry_offset (in_chunk);
  struct copies c;

  for (unsigned i = 0; i < 2; i++) {
    c.wrong[i] = k->wrong[i][sector];
    if (!c.wrong[i])
      c.wrong[i] = store_entry_decode (k->bytes[i] + at, k->d->super.uuid,
                                       (spare_t) { (uint32_t) slot }, &c.e[i]);
  }
  c.are_alike = !c.wrong[0] && !c.wrong[1] &&
    memcmp (k->bytes[0] + at, k->bytes[1] + at, ENTRY_BYTES) == 0;
  if (c.wrong[0] && c.wrong[1])
    visit_damaged (k, slot, 1, c.wrong);
  else
    visit_entry (k, slot, &c);
}

/* A stretch of a table; what cannot be read at once is read by sectors. */
static void
read_table (struct walk *k, unsigned copy, uint64_t offset, size_t nr_sectors)
{
  const char *wrong = read_bytes (k->d, k->bytes[copy],
                                  nr_sectors * TABLE_SECTOR_BYTES, offset);

  for (size_t i = 0; i < nr_sectors; i++)
    k->wrong[copy][i] = wrong == NULL ? NULL
      : read_bytes (k->d, k->bytes[copy] + i * TABLE_SECTOR_BYTES,
                    TABLE_SECTOR_BYTES, offset + i * TABLE_SECTOR_BYTES);
}

/* Slots first ... of a section, before end; returns how many it were. */
static uint64_t
visit_chunk (struct walk *k, const struct store_section *s, uint64_t first,
             uint64_t end)
{
  static const char *const gone[2] = { behind_the_end, behind_the_end };
  uint64_t offset = store_entry_offset (first);
  uint64_t nr = MIN (end - first, (uint64_t) TABLE_SLOTS);
  size_t nr_sectors = (size_t) div_round_up (nr, ENTRIES_PER_SECTOR);

  /* The second table is behind the first: there may be many such slots. */
  if (s->table_a + offset >= k->d->dev->info.size_bytes) {
    visit_damaged (k, s->first_slot + first, end - first, gone);
    return end - first;
  }
  read_table (k, 0, s->table_a + offset, nr_sectors);
  read_table (k, 1, s->table_b + offset, nr_sectors);
  for (uint64_t n = 0; n < nr; n++)
    visit_slot (k, s->first_slot + first + n, n);
  return nr;
}

static void
walk_entries (struct walk *k)
{
  const struct store_super *super = &k->d->super;

  for (unsigned i = 0; i < super->nr_sections; i++) {
    const struct store_section *s = &super->sections[i];
    uint64_t end = super->nr_ready > s->first_slot
      ? MIN (s->nr_slots, super->nr_ready - s->first_slot) : 0;

    for (uint64_t first = 0; first < end; )
      first += visit_chunk (k, s, first, end);
  }
  end_stretch (k);
}

static void
put_counts (struct lines *w, const struct walk *k)
{
  lines_begin (w, "counts", '{');
  for (unsigned state = ENTRY_FREE; state <= ENTRY_BAD_SLOT; state++)
    lines_number (w, state_names[state], k->nr[state]);
  lines_number (w, "damaged_in_both_copies", k->nr_damaged);
  lines_number (w, "copies_differ", k->nr_differ);
  lines_end (w, '}');
}

static int
dump_entries (struct dump *d)
{
  CLEANUP_FREE struct walk *k = calloc (1, sizeof *k);

  if (k == NULL)
    return set_error (ENOMEM, "no memory to dump store %s", d->path);
  k->d = d;
  walk_entries (k);
  put_counts (&d->w, k);
  lines_begin (&d->w, "entries", '[');
  k->prints = true;
  walk_entries (k);
  lines_end (&d->w, ']');
  return 0;
}

/* All of it. */

/* Does a server have a lock on the file?  Asking takes none. */
static bool
is_locked (struct dev *dev)
{
  struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

  return dev->info.kind == DEV_FILE &&
    fcntl (dev_file_fd (dev), F_OFD_GETLK, &lock) == 0 &&
    lock.l_type != F_UNLCK;
}

static void
put_head (struct dump *d)
{
  static const char *const kinds[] = { "", "file", "block_device", "nbd" };
  enum dev_kind kind = d->dev->info.kind;

  lines_text (&d->w, "remap_version", PACKAGE_VERSION);
  lines_text (&d->w, "store", d->path);
  lines_text (&d->w, "kind", kinds[kind]);
  lines_number (&d->w, "size", d->dev->info.size_bytes);
  if (kind != DEV_FILE)
    lines_text (&d->w, "note", "if a server has it, it may be changing");
  else
    lines_bool (&d->w, "in_use", is_locked (d->dev));
  if (is_locked (d->dev))
    lines_text (&d->w, "note", "a server has it, so it may be changing");
}

static int
dump_all (struct dump *d)
{
  int copy;

  read_supers (d);
  if (!may_be_store (d))
    return set_error (EEXIST, "%s is no store", d->path);
  lines_begin (&d->w, NULL, '{');
  put_head (d);
  put_blocks (&d->w, "superblock", d->supers, put_super_fields);
  copy = choose_super (d);
  if (copy == -1) {
    lines_problem (&d->w, "no superblock says where the rest is");
    lines_end (&d->w, '}');
    return 0;
  }
  lines_text (&d->w, "where_all_is", copy == 0 ? "by the first superblock"
              : "by the second superblock");
  for (unsigned i = 0; i < 2; i++)
    read_commit (d, i, store_commit_at (&d->super, i));
  put_blocks (&d->w, "commit_sector", d->commits, put_commit_fields);
  if (dump_entries (d) == -1)
    return -1;
  lines_end (&d->w, '}');
  return 0;
}

int
store_dump (const char *path, bool json, store_dump_fn *fn, void *opaque)
{
  CLEANUP_FREE struct dump *d = calloc (1, sizeof *d);
  int r;

  if (d == NULL)
    return set_error (ENOMEM, "no memory to dump store %s", path);
  d->w = (struct lines) { .json = json, .fn = fn, .opaque = opaque };
  d->path = path;
  d->durable_seq = UINT64_MAX;
  d->dev = dev_open (path, DEV_DIRECT_OFF,
                     DEV_OPEN_READONLY | DEV_OPEN_NO_LOCK, DEV_TIMEOUT_S);
  if (d->dev == NULL)
    return -1;
  r = dump_all (d);
  lines_put_kept (&d->w, "");
  dev_close (d->dev);
  return r;
}
