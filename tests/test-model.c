/* SPDX-License-Identifier: BSD-3-Clause */
/* Random requests of several connections, random faults that appear and
 * vanish, restarts and kill -9, against an oracle that knows what each byte may
 * be (support/model-oracle.h): no wrong byte is read, nothing acknowledged is
 * lost, and there is no error that no fault explains.
 *
 * The test goes through worlds (support/model-world.h), each with a seed: the
 * kind of the disk, of its store and of its faults, and then the sequence of
 * requests, faults, kills and restarts.  What is not repeated with several
 * connections is how their requests interleave; with one connection, which then
 * has one request under way, it all is, but for the moment of a kill.
 *
 *   REMAP_TEST_SEED=N               begin with the world of this seed
 *   REMAP_TEST_SOAK_SECONDS=N       how long (30)
 *   REMAP_TEST_MODEL_CONNECTIONS=N  connections, instead of 4 to 8
 *   REMAP_TEST_MODEL_TRACE=1        print every step
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model-client.h"
#include "model-oracle.h"
#include "model-world.h"
#include "t_base.h"
#include "t_ctl.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum {
  MOST_BYTES = 5 << 20,         /* of a request */
  CHUNK = 256 << 10,            /* of a look at all */
  RESERVE_S = 2,                /* times t_scale: to end the last world */
  MEMORY = 1 << 14,             /* steps that are remembered */
  SHOWN = 60,
};

static const char *const op_names[MODEL_NR_OPS] = {
  "read", "write", "zero", "trim", "flush", "cache", "block status",
};

/* What has been done, over all worlds. */
static struct {
  uint64_t requests[MODEL_NR_OPS], bytes_read, bytes_written, cut_off;
  uint64_t errors[200];         /* by errno */
  uint64_t verified_bytes, worlds, faults, kills, restarts, bursts;
  uint64_t remapped, lost;      /* sectors, at the end of each world */
  uint64_t disk_errors, spare_errors;   /* requests that failed below */
} totals;

/* A step, for who reads of a failure. */
struct step {
  struct model_request request;
  bool is_end;
  int err;
  const char *text;             /* of another kind */
};

static struct step steps[MEMORY];
static uint64_t nr_steps, deadline_ms;
static struct model_world *world;
static struct model_client *client;
static bool traces;

/*---- Steps, and failures ----*/

static void
print_step (FILE *fp, const struct step *s)
{
  const struct model_request *r = &s->request;

  if (s->text) {
    fprintf (fp, "  %s\n", s->text);
    return;
  }
  fprintf (fp, "  tick %llu: %s%s %u, %llu-%llu%s%s%s%s\n",
           (unsigned long long) r->started, s->is_end ? "end of " : "",
           op_names[r->op], r->gen, (unsigned long long) r->offset,
           (unsigned long long) r->offset + r->count, r->fua ? " FUA" : "",
           r->fast ? " FAST" : "", r->no_hole ? " NO_HOLE" : "",
           !s->is_end ? "" : s->err == 0 ? ": success"
           : s->err == MODEL_CUT_OFF ? ": cut off" : strerrorname_np (s->err));
}

static void
remember (const struct step *s)
{
  steps[nr_steps++ % MEMORY] = *s;
  if (traces)
    print_step (stdout, s);
}

static void
remember_text (const char *text)
{
  remember (&(struct step) { .text = text });
}

static bool
is_near (const struct step *s, const struct model_request *r)
{
  return s->text == NULL && s->request.offset < r->offset + r->count + 8192 &&
    s->request.offset + s->request.count + 8192 > r->offset;
}

/* The latest steps that have to do with these bytes, and with none. */
static void
show_steps (const struct model_request *r)
{
  const uint64_t first = nr_steps > MEMORY ? nr_steps - MEMORY : 0;
  uint64_t from = nr_steps, nr = 0;

  while (from > first && nr < SHOWN) {
    from--;
    nr += is_near (&steps[from % MEMORY], r) || steps[from % MEMORY].text;
  }
  for (; from < nr_steps; from++)
    if (is_near (&steps[from % MEMORY], r) || steps[from % MEMORY].text)
      print_step (stderr, &steps[from % MEMORY]);
}

static void
fail (const struct model_request *r, const char *why)
{
  fprintf (stderr, "the latest steps there:\n");
  show_steps (r);
  fprintf (stderr, "faults in force:\n%s",
           model_world_describe_faults (world));
  T_FAIL ("REMAP_TEST_SEED=%llu, step %llu: %s %u of bytes %llu-%llu: %s",
          (unsigned long long) world->seed, (unsigned long long) nr_steps,
          op_names[r->op], r->gen, (unsigned long long) r->offset,
          (unsigned long long) r->offset + r->count, why);
}

/*---- Requests ----*/

static void
count_answer (const struct model_answer *a)
{
  totals.requests[a->request.op]++;
  if (a->err == MODEL_CUT_OFF)
    totals.cut_off++;
  else if (a->err)
    totals.errors[a->err % 200]++;
  else if (a->request.op == MODEL_READ)
    totals.bytes_read += a->request.count;
  else if (a->request.op == MODEL_WRITE)
    totals.bytes_written += a->request.count;
}

static const char *
check_extents (const struct model_answer *a)
{
  const struct model_request *r = &a->request;
  const char *why = NULL;
  uint64_t end = r->offset + r->count;

  for (size_t i = 0; i < a->nr_extents && why == NULL; i++) {
    const struct model_extent *x = &a->extents[i];
    const uint64_t last = x->offset + x->count < end
      ? x->offset + x->count : end;

    if (x->is_zero && x->offset < last)
      why = model_oracle_zero_extent (world->oracle, r, x->offset,
                                      last - x->offset);
  }
  return why == NULL ? NULL : t_str ("called zeroes: %s", why);
}

static void
answered (void *opaque, struct model_answer *a)
{
  const char *why = NULL;

  (void) opaque;
  remember (&(struct step) { a->request, true, a->err, NULL });
  count_answer (a);
  if (a->request.op == MODEL_STATUS && a->err == 0)
    why = check_extents (a);
  if (why == NULL)
    why = model_oracle_end (world->oracle, &a->request, a->err, a->data);
  if (why)
    fail (&a->request, why);
}

static void
send_request (struct model_client *c, unsigned connection,
              struct model_request *r)
{
  static uint8_t data[MOST_BYTES];

  if (r->op == MODEL_WRITE)
    t_pattern_fill (data, r->count, r->offset, r->gen);
  model_oracle_begin (world->oracle, r);
  remember (&(struct step) { *r, false, 0, NULL });
  model_client_send (c, connection, r, data);
}

static bool
time_is_up (void)
{
  return t_now_ms () >= deadline_ms;
}

static void
send_next (void)
{
  const unsigned connection = (unsigned)
    model_random_below (&world->requests, world->nr_connections);
  struct model_request r;

  model_world_next_request (world, &r);
  if (!model_client_can (client, &r))
    return;
  while (!model_client_has_room (client, connection))
    model_client_wait (client);
  send_request (client, connection, &r);
  model_client_look (client);
}

static void
do_step (void)
{
  if (model_random_below (&world->fault_dice, world->fault_every) == 0) {
    model_world_change_faults (world);
    remember_text (t_str ("faults: %s", model_world_describe_faults (world)));
  }
  send_next ();
}

/*---- A look at all ----*/

/* What a single read got. */
struct look {
  struct model_request request;
  uint8_t data[CHUNK];
  int err;
};

static void
looked (void *opaque, struct model_answer *a)
{
  struct look *l = opaque;

  remember (&(struct step) { a->request, true, a->err, NULL });
  l->request = a->request;
  l->err = a->err;
  memcpy (l->data, a->data, a->request.count);
}

static void
look_at (struct model_client *c, uint64_t offset, uint32_t count)
{
  struct model_request r = {
    .op = MODEL_READ, .offset = offset, .count = count,
  };

  send_request (c, 0, &r);
  model_client_drain (c);
}

/* The sectors that were found lost in the latest look at all. */
struct found {
  uint64_t *lba;
  size_t nr, max;
};

static void
note_lost (struct found *f, uint64_t lba)
{
  if (f->nr == f->max) {
    f->max = 2 * f->max + 64;
    f->lba = realloc (f->lba, f->max * sizeof f->lba[0]);
    if (f->lba == NULL)
      T_FAIL ("out of memory");
  }
  f->lba[f->nr++] = lba;
}

static bool
found_lost (const struct found *f, uint64_t lba)
{
  for (size_t i = 0; i < f->nr; i++)
    if (f->lba[i] == lba)
      return true;
  return false;
}

/* Read this; in smaller pieces where it fails, to the sector.  settles: what is
 * read now is what stays.
 */
static void
verify_range (struct model_client *c, struct look *l, uint64_t offset,
              uint32_t count, bool settles, struct found *lost)
{
  const uint32_t sector = world->traits.sector_bytes;
  const uint32_t piece = count > 8 * sector ? 8 * sector : sector;
  const char *why;

  look_at (c, offset, count);
  why = model_oracle_end (world->oracle, &l->request, l->err, l->data);
  if (why)
    fail (&l->request, t_str ("when all is looked at: %s", why));
  if (l->err == 0) {
    totals.verified_bytes += count;
    if (settles)
      model_oracle_settle (world->oracle, &l->request, l->data);
    return;
  }
  if (count <= sector) {
    note_lost (lost, offset / sector);
    return;
  }
  for (uint32_t done = 0; done < count; done += piece)
    verify_range (c, l, offset + done, count - done < piece ? count - done
                  : piece, settles, lost);
}

/* No other request is under way. */
static void
verify_all (bool settles, struct found *ret_lost)
{
  static struct look l;
  struct model_client *c = model_client_new (world->server, 1, 1, looked, &l);

  remember_text (settles ? "all is looked at, and stays"
                 : "all is looked at");
  *ret_lost = (struct found) { 0 };
  for (uint64_t at = 0; at < world->traits.size; at += CHUNK)
    verify_range (c, &l, at, world->traits.size - at < CHUNK
                  ? (uint32_t) (world->traits.size - at) : CHUNK, settles,
                  ret_lost);
  model_client_free (c);
}

/* A lost sector that is not in the list, and one in the list that can be read,
 * are right only if it has been found again meanwhile.
 */
static void
must_be_readable (uint64_t lba)
{
  static struct look l;
  struct model_client *c = model_client_new (world->server, 1, 1, looked, &l);
  const uint64_t offset = lba * world->traits.sector_bytes;
  const uint64_t left = world->traits.size - offset;

  look_at (c, offset, left < world->traits.sector_bytes ? (uint32_t) left
           : world->traits.sector_bytes);
  if (l.err)
    fail (&l.request, "it fails, but is not listed as lost");
  if (model_oracle_end (world->oracle, &l.request, 0, l.data))
    fail (&l.request, "found again, with wrong content");
  model_client_free (c);
}

/* "remapctl list" must agree with what is known.  Returns how many are mapped;
 * *ret_lost, of these.
 */
static uint64_t
check_list (const struct found *lost, uint64_t *ret_lost)
{
  json_t *root = t_ctl_json ("list", world->store_path), *range;
  json_t *sectors = json_object_get (root, "sectors");
  uint64_t nr = 0, nr_known = 0;
  size_t i;

  *ret_lost = 0;
  json_array_foreach (sectors, i, range) {
    json_int_t lba, count;
    const char *state;

    if (json_unpack (range, "{s:I,s:I,s:s}", "lba", &lba, "count", &count,
                     "state", &state) == -1)
      T_FAIL ("remapctl list --json: not as documented");
    for (json_int_t j = lba; j < lba + count; j++) {
      const bool is_lost = strcmp (state, "lost") == 0;

      nr++;
      *ret_lost += is_lost;
      if (!model_oracle_was_bad (world->oracle, j))
        T_FAIL ("REMAP_TEST_SEED=%llu: sector %llu is listed as %s, and was "
                "never bad", (unsigned long long) world->seed,
                (unsigned long long) j, state);
      nr_known += is_lost && found_lost (lost, j);
      if (is_lost && !found_lost (lost, j) && !world->traits.lost_reads_zero)
        T_FAIL ("REMAP_TEST_SEED=%llu: sector %llu is listed as lost, but was "
                "read", (unsigned long long) world->seed,
                (unsigned long long) j);
    }
  }
  json_decref (root);
  if (nr_known < lost->nr && !world->traits.has_deadline)
    for (i = 0; i < lost->nr; i++)
      if (strcmp (t_ctl_state_of (world->store_path, lost->lba[i]), "lost"))
        must_be_readable (lost->lba[i]);
  return nr;
}

/* All that there is, with the faults of the medium alone. */
static void
verify (bool settles)
{
  struct found lost;
  uint64_t nr_lost;

  if (model_random_percent (&world->ends, 50))
    model_world_clear_faults (world);
  else
    model_world_calm_faults (world);
  verify_all (settles, &lost);
  check_list (&lost, &nr_lost);
  free (lost.lba);
}

/*---- The whole disk fails ----*/

/* How many sectors are in the list? */
static uint64_t
nr_listed (void)
{
  json_t *root = t_ctl_json ("list", world->store_path), *range;
  uint64_t nr = 0;
  size_t i;

  json_array_foreach (json_object_get (root, "sectors"), i, range)
    nr += (uint64_t)
      json_integer_value (json_object_get (range, "count"));
  json_decref (root);
  return nr;
}

static bool
breaker_is_closed (void *arg)
{
  json_t *root = t_ctl_json ("status", world->store_path);
  const char *state = json_string_value (json_object_get (root, "breaker"));
  const bool r = state && strcmp (state, "closed") == 0;

  (void) arg;
  json_decref (root);
  return r;
}

static bool
are_as_many_listed (void *arg)
{
  return nr_listed () <= *(const uint64_t *) arg;
}

static void
send_some (unsigned nr)
{
  for (unsigned i = 0; i < nr && !time_is_up (); i++)
    send_next ();
  model_client_drain (client);
}

/* The disk fails everywhere, and comes back, a few times.  Then all is as it
 * was: nothing has got a spare, and what was called lost is not.
 */
static void
burst (void)
{
  struct model_random *r = &world->ends;
  const unsigned nr = 1 + (unsigned) model_random_below (r, 3);
  uint64_t nr_before;

  model_client_drain (client);
  verify (false);
  model_world_clear_faults (world);
  nr_before = nr_listed ();
  model_oracle_burst (world->oracle, true);
  totals.bursts++;
  for (unsigned i = 0; i < nr; i++) {
    const bool only_writes = model_random_percent (r, 40);

    remember_text (only_writes ? "the disk takes no writes"
                   : "the whole disk fails");
    model_world_fail_disk (world, only_writes ? FAULT_WRITE
                           : FAULT_READ | FAULT_WRITE | FAULT_TRIM);
    send_some (10 + (unsigned) model_random_below (r, 100));
    model_world_fail_disk (world, 0);
    remember_text ("it is back");
    send_some ((unsigned) model_random_below (r, 50));
  }
  t_wait_until (breaker_is_closed, NULL, 15000, "the breaker to close");
  model_oracle_burst (world->oracle, false);
  remember_text ("the breaker is closed");
  t_wait_until (are_as_many_listed, &nr_before, 15000,
                "what a dead disk was taken for to be forgotten");
  verify (false);
}

/*---- Sessions and worlds ----*/

/* The server ends in some way, and another begins. */
static void
change_servers (void)
{
  const bool kills = model_random_percent (&world->ends, 70);

  if (kills) {
    t_server_kill (world->server);
    totals.kills++;
    remember_text ("the server was killed");
    model_client_cut_off (client);
    model_client_free (client);
  }
  else {
    model_client_drain (client);
    model_client_free (client);
    t_server_stop (world->server);
    remember_text ("the server was stopped");
  }
  client = NULL;
  if (model_random_percent (&world->ends, 10)) {
    model_world_restart (world);
    t_server_kill (world->server);
    totals.kills++;
  }
  model_world_restart (world);
  totals.restarts++;
  verify (true);
}

static void
run_session (bool is_last)
{
  const bool bursts = model_random_percent (&world->ends, 20) &&
    !world->direct_off;

  client = model_client_new (world->server, world->nr_connections,
                             world->depth, answered, NULL);
  for (unsigned i = 0; i < world->steps_per_session && !time_is_up (); i++)
    do_step ();
  if (bursts && !time_is_up ())
    burst ();
  if (!is_last && !time_is_up ()) {
    change_servers ();
    return;
  }
  model_client_drain (client);
  model_client_free (client);
  client = NULL;
  verify (false);
}

static void
end_world (void)
{
  totals.remapped += (uint64_t) t_ctl_status (world->store_path, "remapped");
  totals.lost += (uint64_t) t_ctl_status (world->store_path, "lost");
  totals.faults += world->nr_faults_made;
  totals.worlds++;
  totals.disk_errors += t_fault_failures (world->disk->fault, "rwzt");
  if (world->store)
    totals.spare_errors += t_fault_failures (world->store->fault, "rwzt");
  model_world_clear_faults (world);
  t_server_stop (world->server);
  t_ctl_check (world->store_path);
  model_world_free (world);
  world = NULL;
}

static void
run_world (uint64_t seed, bool has_loops, unsigned connections)
{
  t_part ("REMAP_TEST_SEED=%llu", (unsigned long long) seed);
  world = model_world_new (seed, has_loops, connections);
  t_note ("%s", model_world_describe (world));
  nr_steps = 0;
  for (unsigned i = 0; i < world->nr_sessions && !time_is_up (); i++)
    run_session (i + 1 == world->nr_sessions);
  end_world ();
}

static void
print_totals (void)
{
  uint64_t nr = 0;

  for (unsigned i = 0; i < MODEL_NR_OPS; i++)
    nr += totals.requests[i];
  t_part ("totals");
  t_note ("worlds: %llu", (unsigned long long) totals.worlds);
  t_note ("requests: %llu", (unsigned long long) nr);
  for (unsigned i = 0; i < MODEL_NR_OPS; i++)
    t_note ("  %s: %llu", op_names[i],
            (unsigned long long) totals.requests[i]);
  t_note ("bytes read: %llu, written: %llu, read again to verify: %llu",
          (unsigned long long) totals.bytes_read,
          (unsigned long long) totals.bytes_written,
          (unsigned long long) totals.verified_bytes);
  for (unsigned i = 0; i < 200; i++)
    if (totals.errors[i])
      t_note ("errors of requests: %s: %llu", strerrorname_np ((int) i),
              (unsigned long long) totals.errors[i]);
  t_note ("requests cut off: %llu", (unsigned long long) totals.cut_off);
  t_note ("faults: %llu, kills: %llu, restarts: %llu, bursts: %llu",
          (unsigned long long) totals.faults,
          (unsigned long long) totals.kills,
          (unsigned long long) totals.restarts,
          (unsigned long long) totals.bursts);
  t_note ("sectors remapped: %llu, lost: %llu",
          (unsigned long long) totals.remapped,
          (unsigned long long) totals.lost);
  t_note ("requests that the disk failed: %llu, the store: %llu",
          (unsigned long long) totals.disk_errors,
          (unsigned long long) totals.spare_errors);
  t_note ("wrong bytes: 0");
}

static uint64_t
number_from (const char *name, uint64_t otherwise)
{
  const char *text = getenv (name);

  return text && *text ? strtoull (text, NULL, 10) : otherwise;
}

int
main (void)
{
  const uint64_t seconds = number_from ("REMAP_TEST_SOAK_SECONDS", 30);
  const uint64_t start_ms = t_now_ms ();
  const unsigned connections = (unsigned)
    number_from ("REMAP_TEST_MODEL_CONNECTIONS", 0);
  bool has_loops;
  uint64_t seed, reserve;

  t_begin ("test-model", (unsigned) seconds + 60);
  traces = getenv ("REMAP_TEST_MODEL_TRACE") != NULL;
  seed = number_from ("REMAP_TEST_SEED", start_ms % 1000000000);
  has_loops = t_disk_can (T_DISK_LOOP);
  if (!has_loops && !t_disk_can (T_DISK_FUSE))
    return t_end ();
  reserve = RESERVE_S * t_scale ();
  deadline_ms = start_ms +
    (seconds > 2 * reserve ? seconds - reserve : seconds / 2) * 1000;
  t_note ("REMAP_TEST_SEED=%llu", (unsigned long long) seed);
  do
    run_world (seed++, has_loops, connections);
  while (!time_is_up ());
  print_totals ();
  return t_end ();
}
