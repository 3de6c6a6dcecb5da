/* GET /: the page that asks this server, and shows what comes (page/page.h). */
#ifndef PDT_SERVE_LIVE_PAGE_H
#define PDT_SERVE_LIVE_PAGE_H

#include <microhttpd.h>

#include "base/error.h"

/* The page, the same for all who ask. */
typedef struct pdt_live_page {
  char *html;
  size_t bytes;
  char *policy; /* its Content-Security-Policy, as a header has it */
} pdt_live_page;

/* `name`: what the model is called. Errors: MEMORY; free it all the same. */
int pdt_live_page_make(pdt_live_page *page, const char *name, pdt_error *err);
void pdt_live_page_free(pdt_live_page *page);

/* Answers with it; it must outlive the connection. */
enum MHD_Result pdt_live_page_answer(const pdt_live_page *page, struct MHD_Connection *connection);

#endif
