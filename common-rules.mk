# SPDX-License-Identifier: BSD-3-Clause
#
# Included by every Makefile.am.

# Ends a list, so that each of its lines can be moved, added and deleted alone.
NULL =

# Warnings, sanitizers: see configure.ac. A target with flags of its own
# repeats $(AM_CFLAGS) and $(AM_LDFLAGS).
AM_CFLAGS = $(REMAP_CFLAGS)
AM_LDFLAGS = $(REMAP_LDFLAGS)

# Manual pages: NAME.SECTION from NAME.pod. An error in the POD is an error.
SUFFIXES = .pod .1 .3 .5 .7
POD2MAN_V = $(AM_V_GEN)$(POD2MAN) --errors=die --utf8 \
	--center='$(PACKAGE_NAME)' --release='$(PACKAGE_STRING)'

.pod.1:
	$(POD2MAN_V) --section=1 $< $@.tmp && mv $@.tmp $@
.pod.3:
	$(POD2MAN_V) --section=3 $< $@.tmp && mv $@.tmp $@
.pod.5:
	$(POD2MAN_V) --section=5 $< $@.tmp && mv $@.tmp $@
.pod.7:
	$(POD2MAN_V) --section=7 $< $@.tmp && mv $@.tmp $@
