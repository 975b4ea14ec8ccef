"""Every statement the library writes for a table, word for word.

Reviewing a change to the SQL is reading its difference here. That a server takes the text, and what it then
refuses, is proven in `test_rls.py` and in `tests/isolation`.
"""

from sqlalchemy import Column, Integer, MetaData, Table, Uuid

from tenancy.rls import (
    GuardedTable,
    Policy,
    Roles,
    announce_sql,
    force_sql,
    grant_added_column_sql,
    guard_sql,
    guarded,
    guarded_table,
    unguard_sql,
)
from tenancy.tables import platform_table
from tests.models import Base
from tests.tenancy.sql_text import flat, written

SHOP = Roles("shop")
PEOPLE = GuardedTable("people", "tenant", ("name", "email"))
TENANTS = GuardedTable(
    "tenants",
    "registry",
    ("slug", "name", "status"),
    app_update=("name",),
    lookup_columns=("slug", "tenant_id"),
)
ORDER = GuardedTable("order", "account", ("e-mail",), key="Id", schema="Sales", sequences=("order_id_seq", "Odd"))


# Tables -----------------------------------------------------------------------------------------------


def test_tenant_table_gets_two_policies_for_everyone_and_grants_for_three_roles() -> None:
    assert flat(guard_sql(PEOPLE, SHOP)) == written("""
    ALTER TABLE people ENABLE ROW LEVEL SECURITY

    ALTER TABLE people FORCE ROW LEVEL SECURITY

    DROP POLICY IF EXISTS tenancy_isolation ON people

    DROP POLICY IF EXISTS tenancy_guard ON people

    DROP POLICY IF EXISTS tenancy_platform_read ON people

    DROP POLICY IF EXISTS tenancy_lookup ON people

    CREATE POLICY tenancy_isolation ON people AS PERMISSIVE FOR ALL TO PUBLIC USING (tenant_id = CASE WHEN
        nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NULL THEN tenancy.no_tenant() ELSE
        nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid END) WITH CHECK (tenant_id =
        CASE WHEN nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NULL THEN tenancy.no_tenant()
        ELSE nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid END)

    CREATE POLICY tenancy_guard ON people AS RESTRICTIVE FOR ALL TO PUBLIC USING (tenant_id = (SELECT
        tenancy.guarded_tenant()) OR (SELECT tenancy.platform_open())) WITH CHECK (tenant_id = (SELECT
        tenancy.guarded_tenant()))

    CREATE POLICY tenancy_platform_read ON people AS PERMISSIVE FOR SELECT TO shop_platform USING ((SELECT
        tenancy.platform_open()))

    REVOKE ALL ON people FROM PUBLIC, shop_app, shop_platform, shop_lookup, shop_backup

    GRANT DELETE, INSERT, SELECT, UPDATE (email, name) ON people TO shop_app

    GRANT SELECT ON people TO shop_backup

    GRANT DELETE, INSERT, SELECT, UPDATE (email, name) ON people TO shop_platform
    """)


def test_registry_is_read_by_lookups_updated_in_part_and_announces_its_changes() -> None:
    assert flat(guard_sql(TENANTS, SHOP)) == written("""
    ALTER TABLE tenants ENABLE ROW LEVEL SECURITY

    ALTER TABLE tenants FORCE ROW LEVEL SECURITY

    DROP POLICY IF EXISTS tenancy_isolation ON tenants

    DROP POLICY IF EXISTS tenancy_guard ON tenants

    DROP POLICY IF EXISTS tenancy_platform_read ON tenants

    DROP POLICY IF EXISTS tenancy_lookup ON tenants

    CREATE POLICY tenancy_isolation ON tenants AS PERMISSIVE FOR ALL TO PUBLIC USING (tenant_id = CASE WHEN
        nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NULL THEN tenancy.no_tenant() ELSE
        nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid END) WITH CHECK (tenant_id =
        CASE WHEN nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NULL THEN tenancy.no_tenant()
        ELSE nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid END)

    CREATE POLICY tenancy_guard ON tenants AS RESTRICTIVE FOR ALL TO PUBLIC USING ((SELECT current_user =
        'shop_lookup') OR tenant_id = (SELECT tenancy.guarded_tenant()) OR (SELECT tenancy.platform_open())) WITH
        CHECK (tenant_id = (SELECT tenancy.guarded_tenant()))

    CREATE POLICY tenancy_platform_read ON tenants AS PERMISSIVE FOR SELECT TO shop_platform USING ((SELECT
        tenancy.platform_open()))

    CREATE POLICY tenancy_lookup ON tenants AS PERMISSIVE FOR SELECT TO shop_lookup USING (true)

    REVOKE ALL ON tenants FROM PUBLIC, shop_app, shop_platform, shop_lookup, shop_backup

    GRANT INSERT, SELECT, UPDATE (name) ON tenants TO shop_app

    GRANT SELECT ON tenants TO shop_backup

    GRANT SELECT (slug, tenant_id) ON tenants TO shop_lookup

    GRANT DELETE, INSERT, SELECT, UPDATE (name, slug, status) ON tenants TO shop_platform

    CREATE OR REPLACE TRIGGER tenancy_announce AFTER INSERT OR UPDATE OR DELETE ON tenants FOR EACH ROW EXECUTE
        FUNCTION tenancy.announce_tenant()
    """)


def test_citus_text_differs_in_force_functions_and_sub_selects() -> None:
    assert flat(s for s in guard_sql(TENANTS, SHOP, "citus") if s not in guard_sql(TENANTS, SHOP)) == written("""
    ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY

    CREATE POLICY tenancy_isolation ON tenants AS PERMISSIVE FOR ALL TO PUBLIC USING (tenant_id =
        tenancy.current_tenant()) WITH CHECK (tenant_id = tenancy.current_tenant())

    CREATE POLICY tenancy_guard ON tenants AS RESTRICTIVE FOR ALL TO PUBLIC USING (current_user = 'shop_lookup' OR
        tenant_id = tenancy.current_tenant() OR tenancy.platform_open()) WITH CHECK (tenant_id =
        tenancy.current_tenant() OR tenancy.platform_open())

    CREATE POLICY tenancy_platform_read ON tenants AS PERMISSIVE FOR SELECT TO shop_platform USING
        (tenancy.platform_open())
    """)


def test_citus_guard_without_a_lookup_does_not_name_the_lookup_role() -> None:
    assert flat(s for s in guard_sql(PEOPLE, SHOP, "citus") if "tenancy_guard ON people AS" in s) == written("""
    CREATE POLICY tenancy_guard ON people AS RESTRICTIVE FOR ALL TO PUBLIC USING (tenant_id =
        tenancy.current_tenant() OR tenancy.platform_open()) WITH CHECK (tenant_id = tenancy.current_tenant() OR
        tenancy.platform_open())
    """)


def test_account_table_is_named_with_its_schema_and_quotes() -> None:
    assert flat(guard_sql(ORDER, SHOP)) == written("""
    ALTER TABLE "Sales"."order" ENABLE ROW LEVEL SECURITY

    ALTER TABLE "Sales"."order" FORCE ROW LEVEL SECURITY

    DROP POLICY IF EXISTS tenancy_isolation ON "Sales"."order"

    DROP POLICY IF EXISTS tenancy_guard ON "Sales"."order"

    DROP POLICY IF EXISTS tenancy_platform_read ON "Sales"."order"

    DROP POLICY IF EXISTS tenancy_lookup ON "Sales"."order"

    CREATE POLICY tenancy_isolation ON "Sales"."order" AS PERMISSIVE FOR ALL TO PUBLIC USING ("Id" = CASE WHEN
        nullif(pg_catalog.current_setting('app.account_id', true), '') IS NULL THEN tenancy.no_account() ELSE
        nullif(pg_catalog.current_setting('app.account_id', true), '')::pg_catalog.uuid END) WITH CHECK ("Id" = CASE
        WHEN nullif(pg_catalog.current_setting('app.account_id', true), '') IS NULL THEN tenancy.no_account() ELSE
        nullif(pg_catalog.current_setting('app.account_id', true), '')::pg_catalog.uuid END)

    CREATE POLICY tenancy_guard ON "Sales"."order" AS RESTRICTIVE FOR ALL TO PUBLIC USING ("Id" = (SELECT
        tenancy.guarded_account()) OR (SELECT tenancy.platform_open())) WITH CHECK ("Id" = (SELECT
        tenancy.guarded_account()))

    CREATE POLICY tenancy_platform_read ON "Sales"."order" AS PERMISSIVE FOR SELECT TO shop_platform USING ((SELECT
        tenancy.platform_open()))

    REVOKE ALL ON "Sales"."order" FROM PUBLIC, shop_app, shop_platform, shop_lookup, shop_backup

    GRANT DELETE, INSERT, SELECT, UPDATE ("e-mail") ON "Sales"."order" TO shop_app

    GRANT SELECT ON "Sales"."order" TO shop_backup

    GRANT DELETE, INSERT, SELECT, UPDATE ("e-mail") ON "Sales"."order" TO shop_platform

    GRANT USAGE ON SEQUENCE "Sales".order_id_seq TO shop_app, shop_platform

    GRANT USAGE ON SEQUENCE "Sales"."Odd" TO shop_app, shop_platform
    """)


def test_unguarding_takes_everything_off_again() -> None:
    assert flat(unguard_sql(ORDER, SHOP)) == written("""
    REVOKE ALL ON "Sales"."order" FROM PUBLIC, shop_app, shop_platform, shop_lookup, shop_backup

    REVOKE ALL ON SEQUENCE "Sales".order_id_seq FROM shop_app, shop_platform

    REVOKE ALL ON SEQUENCE "Sales"."Odd" FROM shop_app, shop_platform

    DROP POLICY IF EXISTS tenancy_isolation ON "Sales"."order"

    DROP POLICY IF EXISTS tenancy_guard ON "Sales"."order"

    DROP POLICY IF EXISTS tenancy_platform_read ON "Sales"."order"

    DROP POLICY IF EXISTS tenancy_lookup ON "Sales"."order"

    DROP TRIGGER IF EXISTS tenancy_announce ON "Sales"."order"

    ALTER TABLE "Sales"."order" NO FORCE ROW LEVEL SECURITY

    ALTER TABLE "Sales"."order" DISABLE ROW LEVEL SECURITY
    """)


def test_changes_are_announced_from_a_table_in_another_schema() -> None:
    assert flat(announce_sql("order", schema="Sales")) == written("""
    CREATE OR REPLACE TRIGGER tenancy_announce AFTER INSERT OR UPDATE OR DELETE ON "Sales"."order" FOR EACH ROW
        EXECUTE FUNCTION tenancy.announce_tenant()
    """)


def test_registry_in_another_schema_announces_from_there() -> None:
    registry = GuardedTable("tenants", "registry", (), schema="Sales")

    assert guard_sql(registry, SHOP)[-1] == announce_sql("tenants", schema="Sales")[0]
    assert 'ON "Sales".tenants FOR EACH ROW' in guard_sql(registry, SHOP)[-1]


def test_policy_for_several_roles_may_be_a_check_alone() -> None:
    policy = Policy("mine", False, "INSERT", ("a", "b"), None, "x > 0")

    assert policy.create_sql("t") == "CREATE POLICY mine ON t AS RESTRICTIVE FOR INSERT TO a, b WITH CHECK (x > 0)"


def test_added_column_is_granted_to_whoever_may_update_every_other() -> None:
    assert flat([grant_added_column_sql("order", "Nick", SHOP, schema="Sales")]) == written("""
    DO $tenancy$ DECLARE runtime text; BEGIN
        IF EXISTS (SELECT FROM pg_policy WHERE polrelid = '"Sales"."order"'::regclass AND polname = 'tenancy_guard')
          THEN
          FOREACH runtime IN ARRAY ARRAY['shop_app', 'shop_platform'] LOOP
            IF (
              SELECT bool_and(has_column_privilege(runtime, a.attrelid, a.attnum, 'UPDATE')) FROM pg_attribute a
                WHERE a.attrelid = '"Sales"."order"'::regclass AND a.attnum > 0 AND NOT
                a.attisdropped AND a.attname <> 'Nick'
                AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum =
                  ANY (i.indkey))
                AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = a.attrelid AND p.polname =
                  'tenancy_isolation'
                  AND starts_with(pg_get_expr(p.polqual, p.polrelid), '(' || quote_ident(a.attname) || ' ='))) THEN
              EXECUTE 'GRANT UPDATE ("Nick") ON "Sales"."order" TO ' || quote_ident(runtime);
            END IF;
          END LOOP;
        END IF;
      END $tenancy$
    """)


def test_force_is_one_word() -> None:
    assert force_sql("people", forced=True) == "ALTER TABLE people FORCE ROW LEVEL SECURITY"
    assert force_sql("people", forced=False) == "ALTER TABLE people NO FORCE ROW LEVEL SECURITY"


# What is derived from the models ----------------------------------------------------------------------


def test_models_of_the_tests_are_guarded_like_this() -> None:
    found = {table.name: table for table in guarded(Base.metadata)}

    assert found["tenants"] == GuardedTable(
        "tenants",
        "registry",
        ("slug", "name", "status", "created_at", "updated_at"),
        app_update=("name", "updated_at"),
        lookup_columns=("tenant_id", "slug", "name", "status"),
    )
    assert found["accounts"] == GuardedTable(
        "accounts", "account", ("email",), key="id", lookup_columns=("email", "id")
    )
    assert found["todos"] == GuardedTable("todos", "tenant", ("title",), sequences=("todos_id_seq",))
    assert found["person_tags"] == GuardedTable("person_tags", "tenant", ())


def test_table_of_another_schema_keeps_it() -> None:
    key = Column("id", Integer, primary_key=True)
    table = Table("staff", MetaData(), key, Column("person", Uuid), schema="hr")
    platform_table(reason="a person reads her own row", account_key="person")(table)

    assert guarded_table(table) == GuardedTable(
        "staff", "account", (), key="person", schema="hr", sequences=("staff_id_seq",)
    )
