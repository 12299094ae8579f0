/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gate.h"

static int
stop (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct gate *g = opaque;

  if (!(call->kind & g->kinds) || is_done != g->is_done ||
      call->offset >= g->end_byte ||
      call->offset + call->count <= g->first_byte)
    return 0;
  pthread_mutex_lock (&g->mutex);
  g->nr_met++;
  if (g->nr_met >= g->nth && g->nr_met - g->nth < g->nr_to_stop) {
    g->nr_inside++;
    pthread_cond_broadcast (&g->changed);
    while (!g->is_open)
      pthread_cond_wait (&g->changed, &g->mutex);
    g->nr_inside--;
  }
  pthread_mutex_unlock (&g->mutex);
  return 0;
}

void
gate_close (struct gate *g)
{
  pthread_mutex_init (&g->mutex, NULL);
  pthread_cond_init (&g->changed, NULL);
  g->is_open = false;
  g->nr_met = g->nr_inside = 0;
  dev_fault_set_hook (g->disk, stop, g);
}

void
gate_wait (struct gate *g, unsigned nr)
{
  pthread_mutex_lock (&g->mutex);
  while (g->nr_inside < nr)
    pthread_cond_wait (&g->changed, &g->mutex);
  pthread_mutex_unlock (&g->mutex);
}

void
gate_open (struct gate *g)
{
  dev_fault_set_hook (g->disk, NULL, NULL);
  pthread_mutex_lock (&g->mutex);
  g->is_open = true;
  pthread_cond_broadcast (&g->changed);
  pthread_mutex_unlock (&g->mutex);
}

static void *
client_main (void *opaque)
{
  struct gate_client *c = opaque;

  errno = 0;
  c->r = c->fn ? c->fn ()
    : c->writes ? fault_rig_write (c->rig, c->lba, c->nr, c->version, 0)
    : fault_rig_read (c->rig, c->lba, c->nr, c->version);
  c->err = c->r == -1 ? errno : 0;
  return NULL;
}

void
gate_client_start (struct gate_client *c)
{
  if (pthread_create (&c->thread, NULL, client_main, c) != 0) {
    fprintf (stderr, "no thread can be made\n");
    abort ();
  }
}

void
gate_client_join (struct gate_client *c)
{
  pthread_join (c->thread, NULL);
}
