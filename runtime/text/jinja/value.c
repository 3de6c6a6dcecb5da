#include "text/jinja/value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

const char *pdt_jinja_kind_name(const pdt_jinja_value *v) {
  static const char *const names[] = {
      [PDT_JINJA_UNDEFINED] = "undefined value",
      [PDT_JINJA_NONE] = "none",
      [PDT_JINJA_BOOL] = "boolean",
      [PDT_JINJA_INTEGER] = "integer",
      [PDT_JINJA_REAL] = "float",
      [PDT_JINJA_STRING] = "string",
      [PDT_JINJA_LIST] = "list",
      [PDT_JINJA_TUPLE] = "tuple",
      [PDT_JINJA_ITERATOR] = "iterator",
      [PDT_JINJA_DICT] = "dict",
      [PDT_JINJA_NAMESPACE] = "namespace",
      [PDT_JINJA_LOOP] = "loop",
      [PDT_JINJA_MACRO] = "macro",
      [PDT_JINJA_FUNCTION] = "function",
  };
  return names[v->kind];
}

bool pdt_jinja_truth(const pdt_jinja_value *v) {
  switch (v->kind) {
  case PDT_JINJA_UNDEFINED:
  case PDT_JINJA_NONE:
    return false;
  case PDT_JINJA_BOOL:
  case PDT_JINJA_INTEGER:
    return v->integer != 0;
  case PDT_JINJA_REAL:
    return v->real != 0;
  case PDT_JINJA_STRING:
    return v->text.n > 0;
  case PDT_JINJA_LIST:
  case PDT_JINJA_TUPLE:
    return v->list->n > 0;
  case PDT_JINJA_DICT:
    return v->dict->n > 0;
  default:
    return true;
  }
}

pdt_jinja_value *pdt_jinja_dict_find(const pdt_jinja_dict *d, pdt_jinja_text key) {
  for (size_t i = 0; i < d->n; i++)
    if (pdt_jinja_same(d->pairs[i].key, key)) return &d->pairs[i].value;
  return NULL;
}

void pdt_jinja_real_text(double value, char text[PDT_JINJA_REAL_BYTES]) {
  char digits[PDT_JINJA_REAL_BYTES];
  int precision = 0;
  if (!isfinite(value)) {
    snprintf(text, PDT_JINJA_REAL_BYTES, "%s", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    return;
  }
  do {
    snprintf(digits, sizeof digits, "%.*e", precision, value);
  } while (strtod(digits, NULL) != value && ++precision < 17);
  int exponent = atoi(strchr(digits, 'e') + 1);
  if (exponent < -4 || exponent >= 16) {
    snprintf(text, PDT_JINJA_REAL_BYTES, "%s", digits);
    return;
  }
  int decimals = precision - exponent;
  snprintf(text, PDT_JINJA_REAL_BYTES, "%.*f", decimals > 1 ? decimals : 1, value);
}

bool pdt_jinja_is_space(int32_t c) {
  if ((c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85) return true;
  if (c < 0x80) return false;
  utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}
