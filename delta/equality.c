/*
 * delta/equality.c
 *     Which equality says what.
 *
 * Some rules group values (DISTINCT, GROUP BY, a unique index) and later find the group by a condition of the query.  That is right if both mean
 * the same by "equal".  They need not:
 *
 *     r.t = o.s COLLATE ci      several values of r.t are equal to one of o.s, though they are distinct by the collation of r.t
 *     r *= o                    the rows (1.0) and (1.00) are equal, but not here
 *     r.n::text < o.t           1.0 and 1.00 are equal, but not to this condition
 *
 * For the first the values are grouped under the condition's collation, the second is not taken for an equality, and for the third images are
 * told apart by their hash.  Deterministic collations all have the same equality, that of bytes.
 */
#include "postgres.h"

#include "canonical.h"
#include "equality.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

bool
collations_agree(Oid one, Oid other)
{
	return one == other ||
		((!OidIsValid(one) || get_collation_isdeterministic(one)) &&
		 (!OidIsValid(other) || get_collation_isdeterministic(other)));
}

bool
is_usual_comparison(Oid operator, Oid type)
{
	return op_in_opfamily(operator, lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opf);
}

Node *
under_collation(Node *expr, Oid collation)
{
	CollateExpr *collate;

	if (collations_agree(exprCollation(expr), collation))
		return expr;
	collate = makeNode(CollateExpr);
	collate->arg = (Expr *) expr;
	collate->collOid = collation;
	collate->location = -1;
	return (Node *) collate;
}

typedef struct ImageContext
{
	int			level;
} ImageContext;

/* Such a comparison cannot tell equal values from each other. */
static bool
is_blind_comparison(OpExpr *comparison, Node *column)
{
	return IsA(column, Var) && is_usual_comparison(comparison->opno, exprType(column)) &&
		collations_agree(comparison->inputcollid, exprCollation(column));
}

static bool
image_walker(Node *node, ImageContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varlevelsup == (Index) context->level && order_needs_hash(list_make1(node));
	if (IsA(node, OpExpr) && list_length(((OpExpr *) node)->args) == 2)
	{
		ListCell   *lc;

		foreach(lc, ((OpExpr *) node)->args)
		{
			if (!is_blind_comparison((OpExpr *) node, lfirst(lc)) && image_walker(lfirst(lc), context))
				return true;
		}
		return false;
	}
	if (IsA(node, Query))
	{
		bool		found;

		context->level++;
		found = query_tree_walker((Query *) node, image_walker, context, 0);
		context->level--;
		return found;
	}
	return expression_tree_walker(node, image_walker, context);
}

bool
images_matter(Node *node, int level)
{
	ImageContext context = {level};

	return node != NULL && IsA(node, Query) ? query_tree_walker((Query *) node, image_walker, &context, 0)
		: image_walker(node, &context);
}
