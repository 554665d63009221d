/*
 * probes.h - static probes (USDT) for bpftrace, perf and systemtap; docs/tracing.md describes each.
 *
 * A probe that nobody uses is one no-operation instruction: its arguments are values that the code has at hand. Without
 * <sys/sdt.h> (Debian: systemtap-sdt-dev) there are no probes.
 *
 * `request` is an address: it identifies a request between its submit and its done. Strings end with a NUL.
 */
#ifndef AIOD_PROBES_H
#define AIOD_PROBES_H

#if defined(__has_include)
#if __has_include(<sys/sdt.h>)
#define AIOD_HAVE_PROBES 1
#endif
#endif

#ifdef AIOD_HAVE_PROBES
#include <sys/sdt.h>
#define AIOD_PROBE3(name, a, b, c) DTRACE_PROBE3(aiod, name, a, b, c)
#define AIOD_PROBE4(name, a, b, c, d) DTRACE_PROBE4(aiod, name, a, b, c, d)
#define AIOD_PROBE5(name, a, b, c, d, e) DTRACE_PROBE5(aiod, name, a, b, c, d, e)
#define AIOD_PROBE6(name, a, b, c, d, e, f) DTRACE_PROBE6(aiod, name, a, b, c, d, e, f)
#else
#define AIOD_PROBE3(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#define AIOD_PROBE4(name, a, b, c, d) (AIOD_PROBE3(name, a, b, c), (void)(d))
#define AIOD_PROBE5(name, a, b, c, d, e) (AIOD_PROBE4(name, a, b, c, d), (void)(e))
#define AIOD_PROBE6(name, a, b, c, d, e, f) (AIOD_PROBE5(name, a, b, c, d, e), (void)(f))
#endif

#endif
