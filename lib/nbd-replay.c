/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-replay.h"

struct replay_write *
replay_write_new (const void *data, uint64_t count, uint64_t offset,
                  uint32_t flags)
{
  struct replay_write *w = calloc (1, sizeof *w);

  if (w == NULL)
    return NULL;
  w->offset = offset;
  w->count = count;
  w->flags = flags;
  w->spare = calloc (1, sizeof *w->spare);
  if (data)
    w->data = malloc (sizeof *w->data + (size_t) count);
  if (w->spare == NULL || (data && w->data == NULL)) {
    replay_write_free (w);
    return NULL;
  }
  if (data) {
    w->data->nr_pieces = 1;
    w->data->nr_bytes = count;
    memcpy (w->data->bytes, data, (size_t) count);
    w->bytes = w->data->bytes;
  }
  return w;
}

void
replay_write_free (struct replay_write *w)
{
  if (w == NULL)
    return;
  free (w->spare);
  free (w->data);
  free (w);
}

static uint64_t
end_of (const struct replay_write *w)
{
  return w->offset + w->count;
}

/* By number. */

static void
link_behind (struct replay *r, struct replay_write *where,
             struct replay_write *w)
{
  w->previous = where;
  w->next = where ? where->next : r->first;
  if (w->next)
    w->next->previous = w;
  else
    r->last = w;
  if (where)
    where->next = w;
  else
    r->first = w;
}

static void
unlink_write (struct replay *r, struct replay_write *w)
{
  if (w->previous)
    w->previous->next = w->next;
  else
    r->first = w->next;
  if (w->next)
    w->next->previous = w->previous;
  else
    r->last = w->previous;
}

void
replay_owe (struct replay *r, struct replay_write *w)
{
  if (!w->is_owed)
    r->nr_owed++;
  w->is_owed = true;
}

void
replay_pay (struct replay *r, struct replay_write *w)
{
  if (w->is_owed)
    r->nr_owed--;
  w->is_owed = false;
}

/* By place: a tree by offset, and a heap by weight, which is random; so its
 * depth is that of a logarithm.
 */

static uint32_t
next_random (struct replay *r)
{
  r->random = r->random * 1664525u + 1013904223u;
  return r->random ^ r->random >> 16;
}

/* What begins before a place, and the rest. */
static void
split (struct replay_write *tree, uint64_t offset,
       struct replay_write **ret_before, struct replay_write **ret_rest)
{
  if (tree == NULL)
    *ret_before = *ret_rest = NULL;
  else if (tree->offset < offset) {
    *ret_before = tree;
    split (tree->right, offset, &tree->right, ret_rest);
  }
  else {
    *ret_rest = tree;
    split (tree->left, offset, ret_before, &tree->left);
  }
}

/* All of a stand before all of b. */
static struct replay_write *
join (struct replay_write *a, struct replay_write *b)
{
  if (a == NULL || b == NULL)
    return a ? a : b;
  if (a->weight > b->weight) {
    a->right = join (a->right, b);
    return a;
  }
  b->left = join (a, b->left);
  return b;
}

static struct replay_write *
last_of (struct replay_write *tree)
{
  while (tree && tree->right)
    tree = tree->right;
  return tree;
}

/* It is in no tree any more. */
static void
discard (struct replay *r, struct replay_write *w)
{
  unlink_write (r, w);
  replay_pay (r, w);
  r->nr_bytes -= sizeof *w;
  if (w->data && --w->data->nr_pieces == 0)
    r->nr_bytes -= sizeof *w->data + w->data->nr_bytes;
  else
    w->data = NULL;             /* others have it */
  replay_write_free (w);
}

static void
discard_tree (struct replay *r, struct replay_write *tree)
{
  if (tree == NULL)
    return;
  discard_tree (r, tree->left);
  discard_tree (r, tree->right);
  discard (r, tree);
}

static void
cut_front (struct replay_write *w, uint64_t offset)
{
  if (w->bytes)
    w->bytes += offset - w->offset;
  w->count = end_of (w) - offset;
  w->offset = offset;
}

/* The part of w behind an offset, as a piece of its own. */
static struct replay_write *
break_off (struct replay *r, struct replay_write *w, uint64_t offset,
           struct replay_write *piece)
{
  *piece = *w;
  piece->left = piece->right = piece->spare = NULL;
  piece->weight = next_random (r);
  cut_front (piece, offset);
  if (piece->data)
    piece->data->nr_pieces++;
  if (piece->is_owed)
    r->nr_owed++;
  link_behind (r, w, piece);
  r->nr_bytes += sizeof *piece;
  return piece;
}

/* Nothing is to be left of a range (N1).  Not more than one write reaches over
 * both of its ends; then *spare becomes the second part of it.
 */
static void
cut (struct replay *r, uint64_t count, uint64_t offset,
     struct replay_write **spare)
{
  const uint64_t end = offset + count;
  struct replay_write *before, *within, *behind, *w;

  split (r->root, offset, &before, &within);
  split (within, end, &within, &behind);
  w = last_of (before);
  if (w && end_of (w) > end) {
    behind = join (break_off (r, w, end, *spare), behind);
    *spare = NULL;
  }
  if (w && end_of (w) > offset)
    w->count = offset - w->offset;
  w = last_of (within);
  if (w && end_of (w) > end) {
    split (within, w->offset, &within, &w);
    cut_front (w, end);
    behind = join (w, behind);
  }
  discard_tree (r, within);
  r->root = join (before, behind);
}

static void
insert (struct replay *r, struct replay_write *w)
{
  struct replay_write *before, *behind;

  split (r->root, w->offset, &before, &behind);
  r->root = join (join (before, w), behind);
}

void
replay_add (struct replay *r, struct replay_write *w, bool is_durable)
{
  cut (r, w->count, w->offset, &w->spare);
  if (is_durable) {                             /* N2 */
    replay_write_free (w);
    return;
  }
  free (w->spare);
  w->spare = NULL;
  w->number = r->end++;
  w->weight = next_random (r);
  insert (r, w);
  link_behind (r, r->last, w);
  r->nr_bytes += sizeof *w + (w->data ? sizeof *w->data + w->count : 0);
}

static void
take_out (struct replay *r, struct replay_write *w)
{
  struct replay_write *before, *behind;

  split (r->root, w->offset, &before, &behind);
  split (behind, w->offset + 1, &w, &behind);
  r->root = join (before, behind);
}

void
replay_drop (struct replay *r, uint64_t end)
{
  struct replay_write *next;

  for (struct replay_write *w = r->first; w && w->number < end; w = next) {
    next = w->next;
    if (w->is_owed)             /* N4 */
      continue;
    take_out (r, w);
    discard (r, w);
  }
}

void
replay_clear (struct replay *r)
{
  struct replay_write *tree = r->root;

  r->root = NULL;
  discard_tree (r, tree);
}

/* The first that ends behind a place. */
static const struct replay_write *
find (const struct replay *r, uint64_t offset)
{
  const struct replay_write *found = NULL;

  for (const struct replay_write *w = r->root; w; )
    if (end_of (w) > offset) {
      found = w;
      w = w->left;
    }
    else
      w = w->right;
  return found;
}

uint64_t
replay_owed (const struct replay *r, void *buf, uint64_t count,
             uint64_t offset, bool *ret_is_owed)
{
  const uint64_t end = offset + count;
  const struct replay_write *w = r->nr_owed ? find (r, offset) : NULL;
  uint64_t nr = count;

  *ret_is_owed = w && w->is_owed && w->offset <= offset;
  if (!*ret_is_owed) {
    while (w && w->offset < end && !w->is_owed)
      w = find (r, end_of (w));
    return w && w->offset < end ? w->offset - offset : count;
  }
  if (end_of (w) < end)
    nr = end_of (w) - offset;
  if (buf && w->bytes)
    memcpy (buf, w->bytes + (offset - w->offset), (size_t) nr);
  else if (buf)
    memset (buf, 0, (size_t) nr);
  return nr;
}

static const struct replay_write *
verify_tree (const struct replay_write *tree, const struct replay_write *before,
             size_t *nr)
{
  if (tree == NULL)
    return before;
  assert (tree->left == NULL || tree->left->weight <= tree->weight);
  assert (tree->right == NULL || tree->right->weight <= tree->weight);
  before = verify_tree (tree->left, before, nr);
  assert (before == NULL || end_of (before) <= tree->offset);
  assert (tree->count > 0 && tree->spare == NULL);
  ++*nr;
  return verify_tree (tree->right, tree, nr);
}

void
replay_verify (const struct replay *r)
{
  const struct replay_write *last = NULL;
  uint64_t nr_bytes = 0;
  size_t nr_listed = 0, nr_in_tree = 0, nr_owed = 0;

  for (const struct replay_write *w = r->first; w; w = w->next) {
    assert (w->number < r->end && w->previous == last);
    assert (last == NULL || last->number <= w->number);
    assert (!w->bytes == !w->data);
    assert (!w->bytes || w->bytes + w->count <= w->data->bytes +
            w->data->nr_bytes);
    nr_bytes += sizeof *w;
    if (w->data)                /* its share of what it has with others */
      nr_bytes += (last == NULL || last->data != w->data)
        ? sizeof *w->data + w->data->nr_bytes : 0;
    nr_listed++;
    nr_owed += w->is_owed;
    last = w;
  }
  verify_tree (r->root, NULL, &nr_in_tree);
  assert (nr_listed == nr_in_tree && nr_owed == r->nr_owed);
  assert (last == r->last && nr_bytes == r->nr_bytes);
}
