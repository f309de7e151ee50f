/* The file that the gcc workload compiles: a small calculator. Needs no header. */
typedef unsigned long size_t;
enum Kind { NUMBER, NAME, PLUS, MINUS, TIMES, DIVIDE, POWER, OPEN, CLOSE, ASSIGN, COMMA, END };
struct Token { enum Kind kind; double value; char name[32]; };
struct Node { enum Kind kind; double value; struct Node *left, *right; int slot; };
struct Arena { struct Node nodes[512]; int used; };
struct Scope { char names[64][32]; double values[64]; int count; };
struct Parser { const char* at; struct Token token; struct Arena* arena; struct Scope* scope; int depth; const char* error; };

static int letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static int digit(int c) { return c >= '0' && c <= '9'; }
static int space(int c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static int same(const char* a, const char* b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

static double number(const char** text) {
  double value = 0, scale = 1;
  const char* p = *text;
  for (; digit(*p); p++) value = value * 10 + (*p - '0');
  if (*p == '.')
    for (p++; digit(*p); p++) value += (*p - '0') * (scale /= 10);
  *text = p;
  return value;
}

static void advance(struct Parser* p) {
  struct Token* t = &p->token;
  while (space(*p->at)) p->at++;
  if (digit(*p->at)) {
    t->kind = NUMBER;
    t->value = number(&p->at);
    return;
  }
  if (letter(*p->at)) {
    int n = 0;
    while (letter(*p->at) || digit(*p->at)) {
      if (n < 31) t->name[n++] = *p->at;
      p->at++;
    }
    t->name[n] = 0;
    t->kind = NAME;
    return;
  }
  switch (*p->at) {
    case '+': t->kind = PLUS; break;
    case '-': t->kind = MINUS; break;
    case '*': t->kind = TIMES; break;
    case '/': t->kind = DIVIDE; break;
    case '^': t->kind = POWER; break;
    case '(': t->kind = OPEN; break;
    case ')': t->kind = CLOSE; break;
    case '=': t->kind = ASSIGN; break;
    case ',': t->kind = COMMA; break;
    case 0: t->kind = END; return;
    default: p->error = "unexpected character"; t->kind = END; return;
  }
  p->at++;
}

static struct Node* make(struct Parser* p, enum Kind kind, struct Node* left, struct Node* right) {
  static struct Node none;
  if (p->arena->used >= 512) {
    p->error = "expression too large";
    return &none;
  }
  struct Node* n = &p->arena->nodes[p->arena->used++];
  n->kind = kind, n->left = left, n->right = right, n->value = 0, n->slot = -1;
  return n;
}

static int slot(struct Scope* s, const char* name) {
  for (int i = 0; i < s->count; i++)
    if (same(s->names[i], name)) return i;
  if (s->count == 64) return -1;
  int i = 0;
  for (; name[i] && i < 31; i++) s->names[s->count][i] = name[i];
  s->names[s->count][i] = 0;
  s->values[s->count] = 0;
  return s->count++;
}

static struct Node* sum(struct Parser* p);

static struct Node* primary(struct Parser* p) {
  struct Node* n;
  if (++p->depth > 100) p->error = "nested too deeply";
  if (p->error) return make(p, NUMBER, 0, 0);
  switch (p->token.kind) {
    case NUMBER:
      n = make(p, NUMBER, 0, 0);
      n->value = p->token.value;
      advance(p);
      break;
    case NAME:
      n = make(p, NAME, 0, 0);
      n->slot = slot(p->scope, p->token.name);
      if (n->slot < 0) p->error = "too many names";
      advance(p);
      if (p->token.kind == ASSIGN) {
        advance(p);
        n->kind = ASSIGN;
        n->left = sum(p);
      }
      break;
    case OPEN:
      advance(p);
      n = sum(p);
      if (p->token.kind != CLOSE) p->error = "missing )";
      else advance(p);
      break;
    case MINUS:
      advance(p);
      n = make(p, MINUS, make(p, NUMBER, 0, 0), primary(p));
      break;
    default: p->error = "operand expected"; n = make(p, NUMBER, 0, 0);
  }
  p->depth--;
  return n;
}

static struct Node* power(struct Parser* p) {
  struct Node* n = primary(p);
  if (p->token.kind != POWER) return n;
  advance(p);
  return make(p, POWER, n, power(p));
}

static struct Node* product(struct Parser* p) {
  struct Node* n = power(p);
  while (p->token.kind == TIMES || p->token.kind == DIVIDE) {
    enum Kind k = p->token.kind;
    advance(p);
    n = make(p, k, n, power(p));
  }
  return n;
}

static struct Node* sum(struct Parser* p) {
  struct Node* n = product(p);
  while (p->token.kind == PLUS || p->token.kind == MINUS) {
    enum Kind k = p->token.kind;
    advance(p);
    n = make(p, k, n, product(p));
  }
  return n;
}

static double raise(double base, double exponent) {
  double result = 1;
  int negative = exponent < 0, n = (int)(negative ? -exponent : exponent);
  for (; n; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return negative ? 1 / result : result;
}

static double value(const struct Node* n, struct Scope* s) {
  switch (n->kind) {
    case NUMBER: return n->value;
    case NAME: return n->slot < 0 ? 0 : s->values[n->slot];
    case ASSIGN: return n->slot < 0 ? 0 : (s->values[n->slot] = value(n->left, s));
    case PLUS: return value(n->left, s) + value(n->right, s);
    case MINUS: return value(n->left, s) - value(n->right, s);
    case TIMES: return value(n->left, s) * value(n->right, s);
    case DIVIDE: return value(n->left, s) / value(n->right, s);
    case POWER: return raise(value(n->left, s), value(n->right, s));
    default: return 0;
  }
}

static int constant(struct Node* n) {
  if (n->kind == NUMBER) return 1;
  if (n->kind == NAME) return 0;
  int left = n->left ? constant(n->left) : 1, right = n->right ? constant(n->right) : 1;
  if (n->kind == ASSIGN || !left || !right) return 0;
  n->value = value(n, 0);
  n->kind = NUMBER;
  n->left = n->right = 0;
  return 1;
}

int calculate(const char* text, struct Scope* scope, double* result, const char** error) {
  struct Arena arena = {.used = 0};
  struct Parser p = {.at = text, .arena = &arena, .scope = scope};
  advance(&p);
  struct Node* n = sum(&p);
  if (!p.error && p.token.kind != END) p.error = "end expected";
  *error = p.error;
  if (p.error) return -1;
  constant(n);
  *result = value(n, scope);
  return 0;
}

void order(double* values, int count, int (*less)(double, double)) {
  for (int gap = count / 2; gap; gap /= 2)
    for (int i = gap; i < count; i++) {
      double v = values[i];
      int k = i;
      for (; k >= gap && less(v, values[k - gap]); k -= gap) values[k] = values[k - gap];
      values[k] = v;
    }
}

void transform(float (*m)[4], const float* in, float* out, int count) {
  for (int i = 0; i < count; i++)
    for (int r = 0; r < 4; r++) {
      float s = 0;
      for (int c = 0; c < 4; c++) s += m[r][c] * in[i * 4 + c];
      out[i * 4 + r] = s;
    }
}
