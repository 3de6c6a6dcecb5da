#include "engine/source.h"

static pdt_next next_of_list(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  pdt_request_list *list = context;
  (void)may_wait;
  (void)err;
  if (list->next == list->n) return PDT_NEXT_END;
  *request = &list->items[list->next++];
  return PDT_NEXT_REQUEST;
}

pdt_request_source pdt_request_list_source(pdt_request_list *list) {
  return (pdt_request_source){list, next_of_list};
}
