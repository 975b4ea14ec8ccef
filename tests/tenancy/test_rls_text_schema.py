"""Every statement the library writes for its schema and for a server, word for word.

Reviewing a change to the SQL is reading its difference here.
"""

from tenancy.lookups import Lookup
from tenancy.rls import Roles, bootstrap_sql, create_lookup_sql, drop_lookup_sql, install_sql, uninstall_sql
from tests.tenancy.sql_text import flat, written

SHOP = Roles("shop")


# Schema `tenancy` -------------------------------------------------------------------------------------


def test_schema_tenancy_is_installed_by_this_text() -> None:
    assert flat(install_sql(SHOP)) == written("""
    CREATE SCHEMA IF NOT EXISTS tenancy

    REVOKE ALL ON SCHEMA tenancy FROM PUBLIC

    GRANT USAGE ON SCHEMA tenancy TO shop_app, shop_platform, shop_backup

    GRANT USAGE, CREATE ON SCHEMA tenancy TO shop_lookup

    ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC

    CREATE TABLE IF NOT EXISTS tenancy.platform_session (
        id uuid PRIMARY KEY,
        role name NOT NULL DEFAULT session_user,
        actor text NOT NULL CHECK (btrim(actor) <> ''),
        reason text NOT NULL CHECK (btrim(reason) <> ''),
        opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz NOT NULL DEFAULT clock_timestamp() + interval '1 hour'
      )

    REVOKE ALL ON tenancy.platform_session FROM PUBLIC, shop_app, shop_platform

    GRANT SELECT, INSERT (id, actor, reason) ON tenancy.platform_session TO shop_platform

    GRANT SELECT ON tenancy.platform_session TO shop_backup

    CREATE OR REPLACE FUNCTION tenancy.no_tenant() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE COST 5 AS
        $$
      BEGIN
        IF nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NOT NULL OR current_user = 'shop_lookup'
          OR session_user = 'shop_platform' THEN
          RETURN NULL;
        END IF;
        RAISE insufficient_privilege USING MESSAGE = 'no tenant is bound to this transaction',
          HINT = 'run it inside tenancy.tenant_scope(...), or SET LOCAL app.tenant_id first';
      END $$

    REVOKE ALL ON FUNCTION tenancy.no_tenant() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.no_tenant() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.no_account() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE COST 5 AS
        $$
      BEGIN
        IF nullif(pg_catalog.current_setting('app.account_id', true), '') IS NOT NULL OR current_user = 'shop_lookup'
          OR session_user = 'shop_platform' THEN
          RETURN NULL;
        END IF;
        RAISE insufficient_privilege USING MESSAGE = 'no account is bound to this transaction',
          HINT = 'run it inside tenancy.account_scope(...), or SET LOCAL app.account_id first';
      END $$

    REVOKE ALL ON FUNCTION tenancy.no_account() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.no_account() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT
        CASE WHEN nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NULL THEN tenancy.no_tenant()
        ELSE nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid END $$

    REVOKE ALL ON FUNCTION tenancy.current_tenant() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.current_tenant() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.current_account() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT
        CASE WHEN nullif(pg_catalog.current_setting('app.account_id', true), '') IS NULL THEN tenancy.no_account()
        ELSE nullif(pg_catalog.current_setting('app.account_id', true), '')::pg_catalog.uuid END $$

    REVOKE ALL ON FUNCTION tenancy.current_account() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.current_account() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.platform_session_valid() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL
        SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
      BEGIN
        RETURN session_user = 'shop_platform' AND EXISTS (
          SELECT FROM tenancy.platform_session s
          WHERE s.id = nullif(pg_catalog.current_setting('app.platform_session', true), '')::pg_catalog.uuid AND
            s.role = session_user
            AND s.opened_at < pg_catalog.now() AND s.expires_at > pg_catalog.clock_timestamp());
      END $$

    REVOKE ALL ON FUNCTION tenancy.platform_session_valid() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.platform_session_valid() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.platform_open() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
      BEGIN
        RETURN CASE WHEN session_user <> 'shop_platform' OR nullif(pg_catalog.current_setting('app.tenant_id',
          true), '') IS NOT NULL THEN false ELSE tenancy.platform_session_valid() END;
      END $$

    REVOKE ALL ON FUNCTION tenancy.platform_open() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.platform_open() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.guarded_tenant() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
      BEGIN
        RETURN CASE WHEN session_user = 'shop_platform' AND NOT tenancy.platform_session_valid() THEN NULL ELSE
          tenancy.current_tenant() END;
      END $$

    REVOKE ALL ON FUNCTION tenancy.guarded_tenant() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.guarded_tenant() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.guarded_account() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
      BEGIN
        RETURN CASE WHEN session_user = 'shop_platform' AND NOT tenancy.platform_session_valid() THEN NULL ELSE
          tenancy.current_account() END;
      END $$

    REVOKE ALL ON FUNCTION tenancy.guarded_account() FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.guarded_account() TO shop_app, shop_platform, shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        RAISE insufficient_privilege USING MESSAGE = 'this table is append-only',
          HINT = 'add a row that corrects the earlier one';
      END $$

    REVOKE ALL ON FUNCTION tenancy.refuse_change() FROM PUBLIC

    CREATE OR REPLACE FUNCTION tenancy.announce_tenant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET
        search_path = pg_catalog, pg_temp AS $$
      BEGIN
        IF TG_OP <> 'INSERT' THEN
          PERFORM pg_catalog.pg_notify('tenancy_tenant', OLD.tenant_id::text);
        END IF;
        IF TG_OP <> 'DELETE' THEN
          PERFORM pg_catalog.pg_notify('tenancy_tenant', NEW.tenant_id::text);
        END IF;
        RETURN NULL;
      END $$

    REVOKE ALL ON FUNCTION tenancy.announce_tenant() FROM PUBLIC

    CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tenancy.platform_session FOR EACH
        STATEMENT EXECUTE FUNCTION tenancy.refuse_change()

    SET LOCAL ROLE shop_lookup

    ALTER DEFAULT PRIVILEGES FOR ROLE shop_lookup REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC

    SET LOCAL ROLE shop_owner
    """)


def test_citus_installs_functions_that_are_inlined() -> None:
    assert flat(s for s in install_sql(SHOP, "citus") if s not in install_sql(SHOP)) == written("""
    CREATE OR REPLACE FUNCTION tenancy.platform_session_valid() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS
        $$ SELECT session_user = 'shop_platform' $$

    CREATE OR REPLACE FUNCTION tenancy.platform_open() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT CASE WHEN session_user <> 'shop_platform' OR nullif(pg_catalog.current_setting('app.tenant_id',
        true), '') IS NOT NULL THEN false ELSE tenancy.platform_session_valid() END $$

    CREATE OR REPLACE FUNCTION tenancy.guarded_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT
        CASE WHEN session_user = 'shop_platform' AND NOT tenancy.platform_session_valid() THEN NULL ELSE
        tenancy.current_tenant() END $$

    CREATE OR REPLACE FUNCTION tenancy.guarded_account() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT
        CASE WHEN session_user = 'shop_platform' AND NOT tenancy.platform_session_valid() THEN NULL ELSE
        tenancy.current_account() END $$
    """)


def test_schema_tenancy_is_removed_in_the_order_of_dependence() -> None:
    assert flat(uninstall_sql(SHOP)) == written("""
    DROP FUNCTION tenancy.announce_tenant()

    DROP FUNCTION tenancy.guarded_account()

    DROP FUNCTION tenancy.guarded_tenant()

    DROP FUNCTION tenancy.platform_open()

    DROP FUNCTION tenancy.platform_session_valid()

    DROP FUNCTION tenancy.current_account()

    DROP FUNCTION tenancy.current_tenant()

    DROP FUNCTION tenancy.no_account()

    DROP FUNCTION tenancy.no_tenant()

    DROP TABLE tenancy.platform_session

    DROP FUNCTION tenancy.refuse_change()

    DROP SCHEMA tenancy
    """)


def test_lookup_answers_an_exact_key_with_the_named_columns() -> None:
    lookup = Lookup(
        "tenant_by_domain", "domains", "domain", ("tenant_id", "domain"), requires=("verified_at", "domain")
    )

    assert flat(create_lookup_sql(lookup, SHOP)) == written("""
    SET LOCAL ROLE shop_lookup

    CREATE OR REPLACE FUNCTION tenancy.tenant_by_domain(key text) RETURNS TABLE (tenant_id domains.tenant_id%TYPE,
        domain domains.domain%TYPE) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
        $$
      #variable_conflict use_column
      BEGIN RETURN QUERY SELECT t.tenant_id, t.domain FROM public.domains t
        WHERE t.domain = $1 AND t.verified_at IS NOT NULL AND t.domain IS NOT NULL; END $$

    REVOKE ALL ON FUNCTION tenancy.tenant_by_domain FROM PUBLIC

    GRANT EXECUTE ON FUNCTION tenancy.tenant_by_domain TO shop_app, shop_platform

    SET LOCAL ROLE shop_owner
    """)
    assert flat(drop_lookup_sql(lookup, SHOP)) == written("""
    SET LOCAL ROLE shop_lookup

    DROP FUNCTION tenancy.tenant_by_domain

    SET LOCAL ROLE shop_owner
    """)


def test_lookup_by_the_bound_account_refuses_an_unbound_one() -> None:
    lookup = Lookup("memberships", "members", "account_id", ("tenant_id", "role"), by_account=True)

    assert flat(create_lookup_sql(lookup, SHOP))[1:2] == written("""
    CREATE OR REPLACE FUNCTION tenancy.memberships() RETURNS TABLE (tenant_id members.tenant_id%TYPE, role
        members.role%TYPE) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
      #variable_conflict use_column
      BEGIN IF nullif(pg_catalog.current_setting('app.account_id', true), '') IS NULL THEN
        RAISE insufficient_privilege USING MESSAGE = 'no account is bound to this transaction',
          HINT = 'run it inside tenancy.account_scope(...), or SET LOCAL app.account_id first';
        END IF;
        RETURN QUERY SELECT t.tenant_id, t.role FROM public.members t
        WHERE t.account_id = (SELECT tenancy.guarded_account()); END $$
    """)


# Roles ------------------------------------------------------------------------------------------------


def test_server_is_bootstrapped_by_this_text() -> None:
    assert flat(bootstrap_sql(SHOP, "Shop db")) == written("""
    DO $$ BEGIN CREATE ROLE shop_owner NOLOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE
        NOREPLICATION; EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE shop_owner NOLOGIN
        NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END $$

    DO $$ BEGIN CREATE ROLE shop_lookup NOLOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE
        NOREPLICATION; EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE shop_lookup NOLOGIN
        NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END $$

    DO $$ BEGIN CREATE ROLE shop_backup NOLOGIN NOINHERIT BYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE
        NOREPLICATION; EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE shop_backup NOLOGIN
        NOINHERIT BYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END $$

    DO $$ BEGIN CREATE ROLE shop_migrator LOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE
        NOREPLICATION; EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE shop_migrator LOGIN
        NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END $$

    DO $$ BEGIN CREATE ROLE shop_app LOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE shop_app LOGIN NOINHERIT NOBYPASSRLS
        NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END $$

    DO $$ BEGIN CREATE ROLE shop_platform LOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE
        NOREPLICATION; EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE shop_platform LOGIN
        NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION; END $$

    GRANT shop_owner TO shop_migrator

    GRANT shop_lookup TO shop_owner

    ALTER ROLE shop_migrator SET role = 'shop_owner'

    ALTER ROLE shop_migrator SET row_security = off

    ALTER DATABASE "Shop db" OWNER TO shop_owner

    REVOKE ALL ON DATABASE "Shop db" FROM PUBLIC

    GRANT CONNECT ON DATABASE "Shop db" TO shop_migrator, shop_app, shop_platform, shop_backup

    REVOKE ALL ON SCHEMA public FROM PUBLIC

    GRANT ALL ON SCHEMA public TO shop_owner

    GRANT USAGE ON SCHEMA public TO shop_app, shop_platform, shop_lookup, shop_backup

    ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT SELECT ON TABLES TO shop_backup

    ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT SELECT ON SEQUENCES TO shop_backup

    ALTER ROLE shop_app SET search_path = "$user", public, pg_temp

    ALTER ROLE shop_app SET statement_timeout = '30s'

    ALTER ROLE shop_app SET lock_timeout = '5s'

    ALTER ROLE shop_app SET idle_in_transaction_session_timeout = '60s'

    ALTER ROLE shop_platform SET search_path = "$user", public, pg_temp

    ALTER ROLE shop_platform SET statement_timeout = '30s'

    ALTER ROLE shop_platform SET lock_timeout = '5s'

    ALTER ROLE shop_platform SET idle_in_transaction_session_timeout = '60s'
    """)
