/* Checks of what must hold if the program is right. Debug and sanitizer builds make them
 * (PDT_CHECKS, which CMake sets); in others they cost nothing, and their arguments are not looked
 * at. What a user or a file may have wrong is an error (error.h), never one of these. */
#ifndef PDT_BASE_CHECK_H
#define PDT_BASE_CHECK_H

/* Ends the process with a line that says which invariant is broken, and where. */
_Noreturn void pdt_invariant_broken(const char *invariant, const char *file, int line);

/* PDT_INVARIANT(pdt_bus_is_valid(bus)): a named invariant, by a function without side effects. */
#ifdef PDT_CHECKS
#define PDT_INVARIANT(holds) ((holds) ? (void)0 : pdt_invariant_broken(#holds, __FILE__, __LINE__))
#else
#define PDT_INVARIANT(holds) ((void)0)
#endif

#endif
