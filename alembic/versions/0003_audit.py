"""Add the audit: entries that nobody changes, chained by the database when their transaction commits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenancy.alembic.execution import current_installation

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ENTRY = [
    "at",
    "action",
    "actor_kind",
    "actor_id",
    "actor_label",
    "impersonator",
    "request_id",
    "reason",
    "target_kind",
    "target_id",
    "before",
    "after",
]
_LINK = ["number", "at", "previous_hash", "hash"]
_HEAD = ["number", "previous_hash", "hash", "pruned_number", "pruned_hash"]
_SAID = "the tenants' login adds what its own people do, as it happens"
_KEPT = "a tenant's audit is removed by retention, or with the tenant; the platform's by retention only"


def upgrade() -> None:
    for name, is_tenants in (("audit", True), ("platform", False)):
        _create_entries(f"{name}_entries", is_tenants=is_tenants)
        _create_links(f"{name}_links", is_tenants=is_tenants)
        _create_heads(f"{name}_heads", is_tenants=is_tenants)
    op.guard_table("audit_entries", update=_ENTRY, app=["SELECT", "INSERT"], platform=["SELECT", "INSERT", "DELETE"])
    op.guard_table("audit_links", update=_LINK, app=["SELECT"], platform=["SELECT", "DELETE"])
    op.guard_table("audit_heads", update=_HEAD, app=["SELECT"], platform=["SELECT", "UPDATE", "DELETE"])
    op.guard_table("platform_entries", update=_ENTRY, kind="staff")
    op.guard_table("platform_links", update=_LINK, kind="staff")
    op.guard_table("platform_heads", update=_HEAD, kind="staff")
    for name, is_tenants in (("audit", True), ("platform", False)):
        for statement in _chain_sql(name, is_tenants=is_tenants):
            op.execute(sa.text(statement))


def downgrade() -> None:
    for name in ("platform", "audit"):
        for function in (f"{name}_link()", f"{name}_keep()", f"{name}_head_keep()", f"{name}_text({name}_entries)"):
            op.execute(sa.text(f"DROP FUNCTION {function} CASCADE"))
    op.unguard_table("platform_heads", update=_HEAD, kind="staff")
    op.unguard_table("platform_links", update=_LINK, kind="staff")
    op.unguard_table("platform_entries", update=_ENTRY, kind="staff")
    op.unguard_table("audit_heads", update=_HEAD, app=["SELECT"], platform=["SELECT", "UPDATE", "DELETE"])
    op.unguard_table("audit_links", update=_LINK, app=["SELECT"], platform=["SELECT", "DELETE"])
    op.unguard_table("audit_entries", update=_ENTRY, app=["SELECT", "INSERT"], platform=["SELECT", "INSERT", "DELETE"])
    for name in ("platform_heads", "platform_links", "platform_entries", "audit_heads", "audit_links", "audit_entries"):
        op.drop_table(name)


# Tables -----------------------------------------------------------------------------------------------


def _keys(table: str, *, is_tenants: bool) -> list[sa.Column[object] | sa.Constraint]:
    tenant = [sa.Column("tenant_id", sa.Uuid(), nullable=False)] if is_tenants else []
    key = ["tenant_id", "id"] if is_tenants else ["id"]
    return [
        *tenant,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{table}")),
    ]


def _create_entries(table: str, *, is_tenants: bool) -> None:
    op.create_table(
        table,
        *_keys(table, is_tenants=is_tenants),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_label", sa.Text(), nullable=False),
        sa.Column("impersonator", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("target_kind", sa.Text(), nullable=True),
        sa.Column("target_id", sa.Uuid(), nullable=True),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "actor_kind IN ('account', 'staff', 'key', 'job', 'system')", name=op.f(f"ck_{table}_actor_kind_known")
        ),
    )
    tenant = ["tenant_id"] if is_tenants else []
    for columns in (["at"], ["action", "at"], ["target_id"]):
        name = "_".join(columns) if is_tenants else columns[0]
        op.create_index(f"ix_{table}_{name}", table, [*tenant, *columns], unique=False)


def _create_links(table: str, *, is_tenants: bool) -> None:
    unique = sa.UniqueConstraint("tenant_id", "number", name=op.f(f"uq_{table}_tenant_id_number"))
    op.create_table(
        table,
        *_keys(table, is_tenants=is_tenants),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        *([unique] if is_tenants else []),
    )
    if not is_tenants:
        op.create_index(f"uq_{table}_number", table, ["number"], unique=True)


def _create_heads(table: str, *, is_tenants: bool) -> None:
    op.create_table(
        table,
        *_keys(table, is_tenants=is_tenants),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("pruned_number", sa.BigInteger(), nullable=False),
        sa.Column("pruned_hash", sa.LargeBinary(), nullable=False),
    )
    # Every entry changes its head: with room in the page, and no index over what changes, that stays within it.
    op.execute(sa.text(f"ALTER TABLE {table} SET (fillfactor = 50)"))


# Functions and triggers -------------------------------------------------------------------------------


def _chain_sql(name: str, *, is_tenants: bool) -> list[str]:
    """Return what chains one table of entries, and keeps anybody from changing them, its owner included."""
    roles = current_installation().roles
    entries, links, heads = f"{name}_entries", f"{name}_links", f"{name}_heads"
    callers = f"{roles.app}, {roles.platform}" if is_tenants else roles.platform
    return [
        _text_sql(name, is_tenants=is_tenants),
        f"GRANT EXECUTE ON FUNCTION {name}_text({entries}) TO {callers}",
        _link_sql(name, is_tenants=is_tenants),
        _keep_sql(name, is_tenants=is_tenants),
        _head_keep_sql(name, is_tenants=is_tenants),
        # Deferred: whoever writes waits for the chain's head while it commits, holding it over no other wait.
        f"CREATE CONSTRAINT TRIGGER {name}_link AFTER INSERT ON {entries} DEFERRABLE INITIALLY DEFERRED "
        f"FOR EACH ROW EXECUTE FUNCTION {name}_link()",
        *(
            f"CREATE TRIGGER {name}_keep BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}_keep()"
            for table in (entries, links)
        ),
        f"CREATE TRIGGER {name}_keep BEFORE DELETE ON {heads} FOR EACH ROW EXECUTE FUNCTION {name}_head_keep()",
        # A head that its chain moves on is the rule: this condition costs less than to call the function would.
        f"CREATE TRIGGER {name}_move BEFORE UPDATE ON {heads} FOR EACH ROW WHEN (NOT ({_moved_on(roles.owner)})) "
        f"EXECUTE FUNCTION {name}_head_keep()",
        *(
            f"CREATE TRIGGER {name}_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION tenancy.refuse_change()"
            for table in (entries, links, heads)
        ),
    ]


def _text_sql(name: str, *, is_tenants: bool) -> str:
    text = _text_of("e", is_tenants=is_tenants)
    return f"CREATE FUNCTION {name}_text(e {name}_entries) RETURNS text LANGUAGE sql STABLE AS $$ SELECT {text} $$"


def _text_of(row: str, *, is_tenants: bool) -> str:
    """The canonical form of an entry: jsonb orders keys and spells values one way; times are UTC whatever is set."""
    fields = "".join(f", '{column}', {row}.{column}" for column in _ENTRY[1:])
    tenant = f", 'tenant_id', {row}.tenant_id" if is_tenants else ""
    at = _time_of(f"{row}.at")
    return f"pg_catalog.jsonb_build_object('form', 1{tenant}, 'id', {row}.id, 'at', {at}{fields})\\:\\:pg_catalog.text"


def _time_of(moment: str) -> str:
    return f"""pg_catalog.to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"')"""


def _link_sql(name: str, *, is_tenants: bool) -> str:
    """A definer, because nobody else may write links and heads. It takes nothing but the row just inserted.

    Each name in it says its schema. To set search_path instead took a third of its time: the plans within the
    policies' functions hold for one search path, and would be made anew on the way in and on the way out.
    """
    owner = "NEW.tenant_id" if is_tenants else "'00000000-0000-0000-0000-000000000000'\\:\\:pg_catalog.uuid"
    tenant, value = ("tenant_id, ", "NEW.tenant_id, ") if is_tenants else ("", "")
    own = "h.tenant_id OPERATOR(pg_catalog.=) NEW.tenant_id AND " if is_tenants else ""
    first = f"pg_catalog.sha256(pg_catalog.convert_to({owner}\\:\\:pg_catalog.text, 'UTF8'))"
    joined = "OPERATOR(pg_catalog.||)"
    number = "(h.number OPERATOR(pg_catalog.+) 1)"
    # Rows may be brought in for several tenants at once, as by a restore: each is linked in its own scope.
    # Whoever could insert a row of the tenant was bound to it then.
    away = "bound OPERATOR(pg_catalog.<>) NEW.tenant_id\\:\\:pg_catalog.text"
    switch = "PERFORM pg_catalog.set_config('app.tenant_id', {}, true)"
    there = switch.format("NEW.tenant_id\\:\\:pg_catalog.text")
    before = f"IF {away} THEN {there}; END IF;" if is_tenants else ""
    after = f"IF {away} THEN {switch.format('bound')}; END IF;" if is_tenants else ""
    # Nobody else can be let into the staff's tables: a row that a superuser plants stays loose, and is found out.
    stranger = f"session_user OPERATOR(pg_catalog.<>) '{current_installation().roles.platform}'"
    leave = "" if is_tenants else f"IF {stranger} THEN RETURN NULL; END IF;"
    forged = _forged(current_installation().roles.app)
    refuse = f"IF {forged} THEN {_refusal(_SAID)} END IF;" if is_tenants else ""
    return f"""
CREATE FUNCTION {name}_link() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  bound pg_catalog.text \\:= coalesce(pg_catalog.current_setting('app.tenant_id', true), '');
  stamp pg_catalog.timestamptz \\:= pg_catalog.clock_timestamp();
  entry pg_catalog.bytea \\:= pg_catalog.convert_to(
    ' ' {joined} {_time_of("stamp")} {joined} ' ' {joined} {_text_of("NEW", is_tenants=is_tenants)}, 'UTF8');
BEGIN
  {leave}
  {refuse}
  {before}
  FOR attempt IN 1..3 LOOP
    WITH moved AS (
      UPDATE public.{name}_heads h SET number = {number}, previous_hash = h.hash, hash = pg_catalog.sha256(
        h.hash {joined} pg_catalog.convert_to({number}\\:\\:pg_catalog.text, 'UTF8') {joined} entry)
      WHERE {own}h.id OPERATOR(pg_catalog.=) {owner} RETURNING h.number, h.previous_hash, h.hash
    )
    INSERT INTO public.{name}_links ({tenant}id, number, at, previous_hash, hash)
    SELECT {value}NEW.id, m.number, stamp, m.previous_hash, m.hash FROM moved m;
    EXIT WHEN FOUND;
    IF attempt OPERATOR(pg_catalog.=) 3 THEN
      RAISE serialization_failure USING MESSAGE = 'the head of the chain is out of reach';
    END IF;
    INSERT INTO public.{name}_heads ({tenant}id, number, previous_hash, hash, pruned_number, pruned_hash)
    VALUES ({value}{owner}, 0, {first}, {first}, 0, {first}) ON CONFLICT DO NOTHING;
  END LOOP;
  {after}
  RETURN NULL;
END $$"""  # noqa: S608 - fixed names


def _forged(app: str) -> str:
    """Whatever the tenants' own login says, it does not speak for staff, and not of another time than now."""
    kinds = " OR ".join(f"NEW.actor_kind OPERATOR(pg_catalog.=) '{kind}'" for kind in ("staff", "key"))
    early = "NEW.at OPERATOR(pg_catalog.<) (stamp OPERATOR(pg_catalog.-) '1 hour'\\:\\:pg_catalog.interval)"
    late = "NEW.at OPERATOR(pg_catalog.>) (stamp OPERATOR(pg_catalog.+) '1 minute'\\:\\:pg_catalog.interval)"
    return f"session_user OPERATOR(pg_catalog.=) '{app}' AND ({kinds} OR {early} OR {late})"


def _refusal(hint: str) -> str:
    return f"RAISE insufficient_privilege USING MESSAGE = 'the audit is append-only', HINT = $hint${hint}$hint$;"


def _is_erased(row: str, *, is_tenants: bool) -> str:
    if not is_tenants:
        return "false"
    return (
        f"EXISTS (SELECT FROM public.tenants t WHERE t.tenant_id = {row}.tenant_id"
        " AND t.status IN ('deleting', 'deleted'))"
    )


def _keep_sql(name: str, *, is_tenants: bool) -> str:
    same = "h.tenant_id = l.tenant_id" if is_tenants else "true"
    own = "l.tenant_id = OLD.tenant_id AND " if is_tenants else ""
    return f"""
CREATE FUNCTION {name}_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND (
    {_is_erased("OLD", is_tenants=is_tenants)}
    OR EXISTS (SELECT FROM public.{name}_links l JOIN public.{name}_heads h ON {same}
               WHERE {own}l.id = OLD.id AND l.number <= h.pruned_number)
  ) THEN
    RETURN OLD;
  END IF;
  {_refusal(_KEPT)}
END $$"""


def _moved_on(owner: str) -> str:
    """The condition that a change of a head is of its chain's own making: only a definer acts as the owner."""
    same = " AND ".join(f"NEW.{column} = OLD.{column}" for column in ("id", "pruned_number", "pruned_hash"))
    return f"{same} AND NEW.number = OLD.number + 1 AND NEW.previous_hash = OLD.hash AND current_user = '{owner}'"


def _head_keep_sql(name: str, *, is_tenants: bool) -> str:
    """Past its chain's moves, the beginning of a chain may move, to a link of it that is at least 30 days old."""
    own = "l.tenant_id = NEW.tenant_id AND " if is_tenants else ""
    return f"""
CREATE FUNCTION {name}_head_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF {_is_erased("OLD", is_tenants=is_tenants)} THEN
      RETURN OLD;
    END IF;
  ELSIF NEW.id = OLD.id
    AND (NEW.number, NEW.previous_hash, NEW.hash) = (OLD.number, OLD.previous_hash, OLD.hash)
    AND NEW.pruned_number > OLD.pruned_number
    AND EXISTS (SELECT FROM public.{name}_links l WHERE {own}l.number = NEW.pruned_number
                AND l.hash = NEW.pruned_hash AND l.at < now() - interval '30 days')
  THEN
    RETURN NEW;
  END IF;
  {_refusal(_KEPT)}
END $$"""
