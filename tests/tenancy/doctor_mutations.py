"""Changes by hand to a canonical database, each with the one thing the doctor has to say about it."""

from __future__ import annotations

from dataclasses import dataclass

from tenancy.rls import GuardedTable, guard_sql, unguard_sql
from tests.conftest import ROLES

OWNER, APP, PLATFORM = ROLES.owner, ROLES.app, ROLES.platform
ANYONE = "00000000-0000-0000-0000-000000000001"


@dataclass(frozen=True)
class Mutation:
    """sql: by the superuser, unless it says otherwise. finds: the id and the exact object."""

    sql: str
    finds: str
    on: str
    also_on: str | None = None

    @property
    def expected(self) -> set[tuple[str, str]]:
        return {(self.finds, on) for on in (self.on, self.also_on) if on is not None}


def owner(sql: str) -> str:
    return f"SET LOCAL ROLE {OWNER}; {sql}; RESET ROLE"


def guarded_table(name: str, columns: str, suffix: str = "") -> str:
    """Create a table of the owner's that no model declares, and guard it as it should be."""
    guard = guard_sql(GuardedTable(name, "tenant", ()), ROLES)
    return owner("; ".join([f"CREATE TABLE {name} ({columns}) {suffix}", *guard]))


PEOPLE, NOTES = "table public.people", "table public.notes"
NOTES_GUARD = GuardedTable("notes", "tenant", ())
KEYED = "tenant_id uuid, id uuid, PRIMARY KEY (tenant_id, id)"
EVENTS = guarded_table("events", KEYED, "PARTITION BY HASH (tenant_id)")
PART = "events_1 PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
REPORTER = "CREATE ROLE reporter LOGIN"
MIGRATOR = ROLES.migrator
LOOKUP = "tenancy.tenant_by_slug(text)"

ROW_SECURITY = {
    "RLS off": Mutation("ALTER TABLE people DISABLE ROW LEVEL SECURITY", "TEN101", PEOPLE),
    "guard taken off": Mutation("; ".join(unguard_sql(NOTES_GUARD, ROLES)), "TEN101", "table public.notes"),
    "copy of a table, granted": Mutation(
        owner(f"CREATE TABLE people_copy (LIKE people INCLUDING ALL); GRANT SELECT ON people_copy TO {APP}"),
        "TEN101",
        "table public.people_copy",
    ),
    "copy in another schema, granted to PUBLIC": Mutation(
        owner('CREATE SCHEMA "Old"; CREATE TABLE "Old"."People" (LIKE people INCLUDING ALL)')
        + '; GRANT INSERT (name) ON "Old"."People" TO tenancy_platform',
        "TEN101",
        'table "Old"."People"',
    ),
    "FORCE off": Mutation("ALTER TABLE people NO FORCE ROW LEVEL SECURITY", "TEN102", PEOPLE),
    "isolation dropped": Mutation(
        "DROP POLICY tenancy_isolation ON people", "TEN103", f"policy tenancy_isolation on {PEOPLE}"
    ),
    "guard dropped": Mutation("DROP POLICY tenancy_guard ON people", "TEN103", f"policy tenancy_guard on {PEOPLE}"),
    "platform read dropped": Mutation(
        "DROP POLICY tenancy_platform_read ON accounts",
        "TEN103",
        "policy tenancy_platform_read on table public.accounts",
    ),
    "isolation opened": Mutation(
        "ALTER POLICY tenancy_isolation ON people USING (true)", "TEN104", f"policy tenancy_isolation on {PEOPLE}"
    ),
    "check opened": Mutation(
        "ALTER POLICY tenancy_guard ON people WITH CHECK (true)", "TEN104", f"policy tenancy_guard on {PEOPLE}"
    ),
    "guard for one role": Mutation(
        f"ALTER POLICY tenancy_guard ON people TO {PLATFORM}", "TEN104", f"policy tenancy_guard on {PEOPLE}"
    ),
    "check opened on a table no model declares": Mutation(
        guarded_table("extra", KEYED) + "; ALTER POLICY tenancy_isolation ON extra WITH CHECK (true)",
        "TEN104",
        "policy tenancy_isolation on table public.extra",
    ),
    "permissive policy": Mutation(
        "CREATE POLICY mine ON people USING (true)", "TEN105", "policy mine on table public.people"
    ),
    "table nobody declared": Mutation(
        owner(f"CREATE TABLE cities (id int PRIMARY KEY); GRANT SELECT ON cities TO {APP}"),
        "TEN106",
        "table public.cities",
    ),
    "partition without policies": Mutation(
        f"{EVENTS}; {owner(f'CREATE TABLE {PART}')}", "TEN111", "table public.events_1"
    ),
    "partition attached": Mutation(
        f"{EVENTS}; {owner('CREATE TABLE events_1 (LIKE events INCLUDING ALL)')};"
        " ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "TEN111",
        "table public.events_1",
    ),
    "inheriting table": Mutation(
        owner("CREATE TABLE people_old (PRIMARY KEY (tenant_id, id)) INHERITS (people)"),
        "TEN111",
        "table public.people_old",
    ),
    "table of a superuser": Mutation("ALTER TABLE people OWNER TO postgres", "TEN117", PEOPLE),
}

GRANTS = {
    "grant missing": Mutation(f"REVOKE DELETE ON people FROM {APP}", "TEN107", PEOPLE),
    "column grant missing": Mutation(f"REVOKE UPDATE (name) ON people FROM {PLATFORM}", "TEN107", PEOPLE),
    "granted to PUBLIC": Mutation("GRANT SELECT ON people TO PUBLIC", "TEN108", PEOPLE),
    "tenant may lift its suspension": Mutation(
        f"GRANT UPDATE (status) ON tenants TO {APP}", "TEN108", "table public.tenants"
    ),
    "lookup role reads more": Mutation(f"GRANT SELECT (name) ON people TO {ROLES.lookup}", "TEN108", PEOPLE),
    "TRUNCATE granted": Mutation(f"GRANT TRUNCATE ON people TO {APP}", "TEN109", PEOPLE),
    "REFERENCES granted": Mutation(f"GRANT REFERENCES ON people TO {PLATFORM}", "TEN109", PEOPLE),
    "TRIGGER granted": Mutation(f"GRANT TRIGGER ON people TO {APP}", "TEN109", PEOPLE),
    "TRUNCATE granted on a table no model declares": Mutation(
        guarded_table("extra", KEYED) + f"; GRANT TRUNCATE ON extra TO {APP}", "TEN109", "table public.extra"
    ),
    "key may be updated": Mutation(f"GRANT UPDATE (tenant_id) ON people TO {APP}", "TEN110", PEOPLE),
    "whole row may be updated": Mutation(f"GRANT UPDATE ON people TO {APP}", "TEN110", PEOPLE),
    "sequence not granted": Mutation(
        f"REVOKE USAGE ON SEQUENCE todos_id_seq FROM {APP}", "TEN115", "sequence public.todos_id_seq"
    ),
    "sequence may be set": Mutation(
        f"GRANT UPDATE ON SEQUENCE todos_id_seq TO {APP}", "TEN115", "sequence public.todos_id_seq"
    ),
}

LIBRARY = {
    "not installed": Mutation("ALTER SCHEMA tenancy RENAME TO elsewhere", "TEN100", "database {database}"),
    "function replaced": Mutation(
        "CREATE OR REPLACE FUNCTION tenancy.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE"
        f" AS $$ SELECT '{ANYONE}'::uuid $$",
        "TEN112",
        "function tenancy.current_tenant()",
    ),
    "function made immutable": Mutation(
        "ALTER FUNCTION tenancy.guarded_tenant() IMMUTABLE", "TEN112", "function tenancy.guarded_tenant()"
    ),
    "function dearer to the planner": Mutation(
        "ALTER FUNCTION tenancy.no_tenant() COST 100", "TEN112", "function tenancy.no_tenant()"
    ),
    "function given away": Mutation(
        "ALTER FUNCTION tenancy.platform_open() OWNER TO postgres", "TEN112", "function tenancy.platform_open()"
    ),
    "function open to PUBLIC": Mutation(
        "GRANT EXECUTE ON FUNCTION tenancy.platform_session_valid() TO PUBLIC",
        "TEN112",
        "function tenancy.platform_session_valid()",
    ),
    "audit not append-only": Mutation(
        "DROP TRIGGER append_only ON tenancy.platform_session", "TEN113", "table tenancy.platform_session"
    ),
    "append-only disabled": Mutation(
        "ALTER TABLE tenancy.platform_session DISABLE TRIGGER append_only", "TEN113", "table tenancy.platform_session"
    ),
    "audit may be changed": Mutation(
        f"GRANT UPDATE ON tenancy.platform_session TO {PLATFORM}", "TEN113", "table tenancy.platform_session"
    ),
    "audit may be entered by the app": Mutation(
        f"GRANT INSERT (actor) ON tenancy.platform_session TO {APP}", "TEN113", "table tenancy.platform_session"
    ),
    "sessions last for ever": Mutation(
        "ALTER TABLE tenancy.platform_session ALTER expires_at SET DEFAULT 'infinity'",
        "TEN113",
        "table tenancy.platform_session",
    ),
    "schema open to creation": Mutation(f"GRANT CREATE ON SCHEMA tenancy TO {APP}", "TEN113", "schema tenancy"),
    "table in the library's schema": Mutation(
        owner("CREATE TABLE tenancy.more (id int)"), "TEN113", "table tenancy.more"
    ),
    "announcement dropped": Mutation("DROP TRIGGER tenancy_announce ON tenants", "TEN114", "table public.tenants"),
    "announcement disabled": Mutation(
        "ALTER TABLE tenants DISABLE TRIGGER tenancy_announce", "TEN114", "table public.tenants"
    ),
    "lookup open to PUBLIC": Mutation(
        f"GRANT EXECUTE ON FUNCTION {LOOKUP} TO PUBLIC", "TEN116", "function tenancy.tenant_by_slug(key text)"
    ),
    "lookup dropped": Mutation(f"DROP FUNCTION {LOOKUP}", "TEN116", "function tenancy.tenant_by_slug(key text)"),
    "lookup nobody declared": Mutation(
        f"SET LOCAL ROLE {ROLES.lookup}; CREATE FUNCTION tenancy.everyone() RETURNS SETOF text LANGUAGE sql"
        " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT slug FROM public.tenants'; RESET ROLE",
        "TEN116",
        "function tenancy.everyone()",
    ),
}

COLUMNS_AND_KEYS = {
    "tenant may be NULL": Mutation(
        guarded_table("extra", "tenant_id uuid, id uuid") + "; CREATE INDEX ON extra (tenant_id)",
        "TEN120",
        "column public.extra.tenant_id",
    ),
    "tenant is text": Mutation(
        owner("CREATE TABLE staging (tenant_id text NOT NULL, id uuid, PRIMARY KEY (tenant_id, id))"),
        "TEN121",
        "column public.staging.tenant_id",
    ),
    "constant default": Mutation(
        f"ALTER TABLE people ALTER tenant_id SET DEFAULT '{ANYONE}'", "TEN122", "column public.people.tenant_id"
    ),
    "unique over all tenants": Mutation(
        "ALTER TABLE people ADD CONSTRAINT one_email UNIQUE (email)",
        "TEN123",
        "unique constraint one_email on public.people",
    ),
    "unique index over all tenants": Mutation(
        "CREATE UNIQUE INDEX one_name ON people (name)", "TEN123", "unique index one_name on public.people"
    ),
    "exclusion over all tenants": Mutation(
        "ALTER TABLE people ADD CONSTRAINT one_excluded EXCLUDE (email WITH =)",
        "TEN123",
        "exclusion constraint one_excluded on public.people",
    ),
    "primary key over all tenants": Mutation(
        "ALTER TABLE notes DROP CONSTRAINT pk_notes, ADD CONSTRAINT pk_notes PRIMARY KEY (id);"
        " CREATE INDEX ON notes (tenant_id)",
        "TEN123",
        "primary key pk_notes on public.notes",
    ),
    "unique over all tenants, no model": Mutation(
        guarded_table("extra", f"{KEYED}, email text, CONSTRAINT one_email UNIQUE (email)"),
        "TEN124",
        "unique constraint one_email on public.extra",
    ),
    "foreign key without the tenant": Mutation(
        "ALTER TABLE notes ADD COLUMN theirs uuid,"
        " ADD CONSTRAINT strange FOREIGN KEY (theirs, person_id) REFERENCES people (tenant_id, id)",
        "TEN125",
        "foreign key strange on public.notes",
    ),
    "foreign key not validated": Mutation(
        "ALTER TABLE notes ADD CONSTRAINT later FOREIGN KEY (tenant_id, person_id)"
        " REFERENCES people (tenant_id, id) NOT VALID",
        "TEN126",
        "foreign key later on public.notes",
    ),
    "foreign key not enforced": Mutation(
        "ALTER TABLE notes DISABLE TRIGGER ALL", "TEN126", "foreign key fk_notes_tenant_id_person_id on public.notes"
    ),
    "no index begins with the tenant": Mutation("ALTER TABLE notes DROP CONSTRAINT pk_notes", "TEN127", NOTES),
    "index on a cast": Mutation(
        "CREATE INDEX casted ON people ((tenant_id::text))", "TEN128", "index casted on public.people"
    ),
    "cast in an index's condition": Mutation(
        f"CREATE INDEX partly ON people (name) WHERE tenant_id::text = '{ANYONE}'",
        "TEN128",
        "index partly on public.people",
    ),
    "cast in a policy": Mutation(
        "CREATE POLICY mine ON people AS RESTRICTIVE USING (tenant_id::text <> '')",
        "TEN128",
        "policy mine on table public.people",
    ),
    "full text index": Mutation(
        "CREATE INDEX words ON people USING gin (to_tsvector('simple', name))",
        "TEN129",
        "index words on public.people",
    ),
    "pattern index": Mutation(
        "CREATE INDEX patterns ON people (tenant_id, name text_pattern_ops)",
        "TEN129",
        "index patterns on public.people",
    ),
    "index on lower()": Mutation(
        "CREATE INDEX lowered ON people (tenant_id, lower(name))", "TEN129", "index lowered on public.people"
    ),
    "index on a numeric column": Mutation(
        "ALTER TABLE people ADD COLUMN price numeric; CREATE INDEX priced ON people (tenant_id, price)",
        "TEN129",
        "index priced on public.people",
    ),
    "index on citext": Mutation(
        "CREATE EXTENSION citext; ALTER TABLE people ADD COLUMN nick citext; CREATE INDEX nicks ON people (nick)",
        "TEN129",
        "index nicks on public.people",
    ),
    "trigram index": Mutation(
        "CREATE EXTENSION pg_trgm; CREATE INDEX trigrams ON people USING gin (name gin_trgm_ops)",
        "TEN129",
        "index trigrams on public.people",
    ),
    "jsonb index": Mutation(
        "ALTER TABLE people ADD COLUMN about jsonb; CREATE INDEX abouts ON people USING gin (about)",
        "TEN129",
        "index abouts on public.people",
    ),
    "index on an enum": Mutation(
        "CREATE TYPE mood AS ENUM ('well'); ALTER TABLE people ADD COLUMN mood mood;"
        " CREATE INDEX moods ON people (tenant_id, mood)",
        "TEN129",
        "index moods on public.people",
    ),
    "public numbers": Mutation(
        "ALTER TABLE people ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
        "TEN130",
        "column public.people.number",
    ),
}

BORROWED_RIGHTS = {
    "view of the owner": Mutation(owner("CREATE VIEW names AS SELECT name FROM people"), "TEN140", "view public.names"),
    "view of a superuser": Mutation(
        f"CREATE VIEW names AS SELECT name FROM people; GRANT SELECT ON names TO {APP}", "TEN140", "view public.names"
    ),
    "view that lost its option": Mutation(
        owner(
            "CREATE VIEW names WITH (security_invoker) AS SELECT name FROM people;"
            " CREATE OR REPLACE VIEW names AS SELECT name FROM people"
        ),
        "TEN140",
        "view public.names",
    ),
    "invoker view over a definer view": Mutation(
        owner(
            "CREATE VIEW inside AS SELECT name FROM people;"
            " CREATE VIEW outside WITH (security_invoker = on) AS SELECT * FROM inside"
        ),
        "TEN140",
        "view public.inside",
    ),
    "materialized view, granted": Mutation(
        owner(
            "CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, name FROM people WITH NO DATA;"
            f" GRANT SELECT ON totals TO {APP}"
        ),
        "TEN141",
        "materialized view public.totals",
    ),
    "foreign table": Mutation(
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far;"
        f" CREATE FOREIGN TABLE distant (name text) SERVER far; GRANT SELECT ON distant TO {APP}",
        "TEN142",
        "foreign table public.distant",
    ),
    "rule": Mutation(
        "CREATE RULE kept AS ON DELETE TO notes DO INSTEAD NOTHING", "TEN143", "rule kept on table public.notes"
    ),
    "definer function": Mutation(
        "CREATE FUNCTION all_names() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT name FROM people'",
        "TEN144",
        "function public.all_names()",
    ),
    "definer procedure of the owner": Mutation(
        owner(
            "CREATE PROCEDURE forget(who uuid) LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM people WHERE id = who';"
            f" GRANT EXECUTE ON PROCEDURE forget TO {APP}"
        ),
        "TEN144",
        "procedure public.forget(IN who uuid)",
    ),
    "definer trigger": Mutation(
        "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER watched BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION watch()",
        "TEN145",
        "trigger watched on table public.people",
    ),
    "function open to PUBLIC": Mutation(
        owner("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION one TO PUBLIC"),
        "TEN146",
        "function public.one()",
    ),
    "leakproof function": Mutation(
        "CREATE FUNCTION tell(text) RETURNS bool LANGUAGE sql LEAKPROOF AS 'SELECT true'",
        "TEN147",
        "function public.tell(text)",
    ),
    "operator": Mutation(
        "CREATE FUNCTION alike(uuid, text) RETURNS bool LANGUAGE sql AS 'SELECT true';"
        " CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = text, FUNCTION = alike)",
        "TEN157",
        "operator public.= (uuid, text)",
    ),
    "cast": Mutation("CREATE CAST (text AS uuid) WITH INOUT AS IMPLICIT", "TEN157", "cast (text AS uuid)"),
}

OTHER_WAYS_OUT = {
    "default privileges": Mutation(
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT SELECT ON TABLES TO {APP}",
        "TEN150",
        f"default privileges of {OWNER}",
    ),
    "default privileges in a schema": Mutation(
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
        "TEN150",
        "default privileges of postgres in schema public",
    ),
    "functions open to PUBLIC by default": Mutation(
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {ROLES.lookup} GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        "TEN150",
        f"default privileges of {ROLES.lookup}",
    ),
    "objects in a schema": Mutation(f"GRANT CREATE ON SCHEMA public TO {APP}", "TEN151", "schema public"),
    "temporary objects": Mutation(f"GRANT TEMP ON DATABASE {{database}} TO {APP}", "TEN152", "database {database}"),
    "schemas": Mutation("GRANT CREATE ON DATABASE {database} TO PUBLIC", "TEN152", "database {database}"),
    "publication": Mutation("CREATE PUBLICATION feed FOR TABLE people", "TEN153", "publication feed"),
    "publication of a schema": Mutation(
        "CREATE PUBLICATION feed FOR TABLES IN SCHEMA public", "TEN153", "publication feed"
    ),
    "publication of all": Mutation("CREATE PUBLICATION feed FOR ALL TABLES", "TEN153", "publication feed"),
    "large object of the app": Mutation(
        f"SET LOCAL ROLE {APP}; SELECT lo_from_bytea(0, 'x'); RESET ROLE", "TEN155", f"large objects of role {APP}"
    ),
    "extension that connects elsewhere": Mutation("CREATE EXTENSION dblink", "TEN156", "extension dblink"),
    "untrusted language": Mutation("CREATE LANGUAGE plevil HANDLER plpgsql_call_handler", "TEN156", "language plevil"),
    "statistics": Mutation(
        f"GRANT SELECT ON pg_catalog.pg_statistic TO {APP}", "TEN158", "table pg_catalog.pg_statistic"
    ),
    "statistics by column": Mutation(
        "GRANT SELECT (stavalues1) ON pg_catalog.pg_statistic TO PUBLIC", "TEN158", "table pg_catalog.pg_statistic"
    ),
}

CATALOG = ROW_SECURITY | GRANTS | LIBRARY | COLUMNS_AND_KEYS | BORROWED_RIGHTS | OTHER_WAYS_OUT

ROLES_CHANGED = {
    "role missing": Mutation(
        f"REVOKE {OWNER} FROM {MIGRATOR}; ALTER ROLE {MIGRATOR} RENAME TO former",
        "TEN201",
        f"role {MIGRATOR}",
    ),
    "app is a superuser": Mutation(f"ALTER ROLE {APP} SUPERUSER", "TEN202", f"role {APP}"),
    "app bypasses policies": Mutation(f"ALTER ROLE {APP} BYPASSRLS", "TEN202", f"role {APP}"),
    "platform makes roles": Mutation(f"ALTER ROLE {PLATFORM} CREATEROLE", "TEN202", f"role {PLATFORM}"),
    "app makes databases": Mutation(f"ALTER ROLE {APP} CREATEDB", "TEN202", f"role {APP}"),
    "app replicates": Mutation(f"ALTER ROLE {APP} REPLICATION", "TEN202", f"role {APP}"),
    "owner signs in": Mutation(f"ALTER ROLE {OWNER} LOGIN", "TEN202", f"role {OWNER}"),
    "owner bypasses policies": Mutation(f"ALTER ROLE {OWNER} BYPASSRLS", "TEN202", f"role {OWNER}"),
    "app is a member of the owner": Mutation(f"GRANT {OWNER} TO {APP}", "TEN203", f"role {APP}"),
    "app reads all data": Mutation(f"GRANT pg_read_all_data TO {APP}", "TEN203", f"role {APP}"),
    "stranger acts as the owner": Mutation(f"{REPORTER}; GRANT {OWNER} TO reporter", "TEN203", "role reporter"),
    "stranger acts as the backup": Mutation(f"{REPORTER}; GRANT {ROLES.backup} TO reporter", "TEN203", "role reporter"),
    "app owns a table": Mutation(
        f"CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO {APP}", "TEN204", f"role {APP}"
    ),
    "lookup role owns a table": Mutation(
        f"CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO {ROLES.lookup}", "TEN204", f"role {ROLES.lookup}"
    ),
    "tenant preset for a role": Mutation(f"ALTER ROLE {APP} SET app.tenant_id = '{ANYONE}'", "TEN205", f"role {APP}"),
    "account preset for a database": Mutation(
        f"ALTER DATABASE {{database}} SET app.account_id = '{ANYONE}'", "TEN205", "defaults of the database"
    ),
    "row_security off": Mutation(f"ALTER ROLE {APP} SET row_security = off", "TEN206", f"role {APP}"),
    "another role at login": Mutation(f"ALTER ROLE {PLATFORM} SET role = '{OWNER}'", "TEN206", f"role {PLATFORM}"),
    "library loaded at login": Mutation(
        "ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain'", "TEN206", "defaults of the database"
    ),
    "search path": Mutation(f"ALTER ROLE {APP} SET search_path = public", "TEN207", f"role {APP}"),
    "search path in one database": Mutation(
        f"ALTER ROLE {APP} IN DATABASE {{database}} SET search_path = pg_temp, public", "TEN207", f"role {APP}"
    ),
    "no lock timeout": Mutation(f"ALTER ROLE {APP} RESET lock_timeout", "TEN208", f"role {APP}"),
    "statement timeout of nothing": Mutation(f"ALTER ROLE {APP} SET statement_timeout = 0", "TEN208", f"role {APP}"),
    "migrator sees less": Mutation(f"ALTER ROLE {MIGRATOR} RESET row_security", "TEN209", f"role {MIGRATOR}"),
    "migrator is not the owner": Mutation(f"ALTER ROLE {MIGRATOR} RESET role", "TEN209", f"role {MIGRATOR}"),
    "second login": Mutation(f"{REPORTER}; GRANT SELECT ON people TO reporter", "TEN210", "role reporter"),
    "second login through a group": Mutation(
        f"CREATE ROLE readers; {REPORTER}; GRANT readers TO reporter; GRANT SELECT ON people TO readers",
        "TEN210",
        "role reporter",
    ),
    "login that reads all data": Mutation(f"{REPORTER}; GRANT pg_read_all_data TO reporter", "TEN210", "role reporter"),
    "login that acts as the app": Mutation(f"{REPORTER}; GRANT {APP} TO reporter", "TEN210", "role reporter"),
}
