"""The questions to the catalog, each asked once whatever the number of tables. Schemas of the server are left out."""

from __future__ import annotations

SERVER = """
    SELECT current_database()::text, current_schema()::text,
           to_regnamespace('tenancy') IS NOT NULL, to_regnamespace('tenancy_hardening') IS NOT NULL
"""

RELATIONS = """
    SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_get_userbyid(c.relowner), c.relrowsecurity,
           c.relforcerowsecurity, coalesce(c.reloptions, '{}'),
           ARRAY(SELECT h.inhparent FROM pg_inherits h WHERE h.inhrelid = c.oid),
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                   AND d.deptype = 'e'),
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY n.nspname, c.relname
"""

TENANT_COLUMNS = """
    SELECT a.attrelid, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attname = 'tenant_id' AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname !~ '^pg_'
"""

# A column that draws from a sequence by itself: deptype a is serial, i is identity.
SEQUENCES = """
    SELECT s.oid, d.refobjid, a.attname::text, d.deptype = 'i'
    FROM pg_class s
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.objsubid = 0
         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE s.relkind = 'S'
"""

CONSTRAINTS = """
    SELECT k.oid, k.conrelid, k.conname, k.contype::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (n, i)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),
           k.confrelid,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (n, i)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i),
           k.convalidated, k.conparentid <> 0, pg_get_constraintdef(k.oid),
           EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled = 'D')
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    WHERE k.contype IN ('p', 'u', 'x', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY k.conname
"""

# A key column is lost to row-level security when its class compares by operators that are not leakproof, when it is
# an expression over anything that is not, or when it serves patterns: LIKE itself is not leakproof. A gin or gist
# class is there for more than equality, so one such operator counts. An exclusion constraint needs no reader.
INDEXES = """
    SELECT i.indexrelid, i.indrelid, x.relname, i.indisunique,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
           ARRAY(SELECT coalesce((SELECT a.attname::text FROM pg_attribute a
                                  WHERE a.attrelid = i.indrelid AND a.attnum = u.n AND u.n > 0), '')
                 FROM unnest(i.indkey::int2[]) WITH ORDINALITY u (n, o) WHERE u.o <= i.indnkeyatts ORDER BY u.o),
           concat_ws(' ', pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)),
           ARRAY(SELECT o.opcname::text FROM unnest(i.indclass::oid[]) u (c) JOIN pg_opclass o ON o.oid = u.c
                 WHERE NOT i.indisexclusion AND (o.opcname LIKE '%\\_pattern\\_ops'
                    OR EXISTS (SELECT FROM pg_amop m JOIN pg_operator op ON op.oid = m.amopopr
                               JOIN pg_proc p ON p.oid = op.oprcode
                               WHERE m.amopfamily = o.opcfamily AND m.amoplefttype = o.opcintype
                                 AND (m.amoprighttype = o.opcintype OR o.opcmethod IN (
                                      SELECT a.oid FROM pg_am a WHERE a.amname IN ('gin', 'gist', 'spgist')))
                                 AND m.amoppurpose = 's' AND NOT p.proleakproof))),
           coalesce(i.indexprs::text LIKE '%COERCEVIAIO%', false)
             OR EXISTS (SELECT FROM regexp_matches(i.indexprs::text, 'funcid (\\d+)', 'g') f (m)
                        JOIN pg_proc p ON p.oid = f.m[1]::oid WHERE NOT p.proleakproof),
           x.relispartition, pg_get_indexdef(i.indexrelid)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY x.relname
"""

# What each view reads, and its text where it could be a window view of the library's.
VIEW_READS = """
    SELECT DISTINCT w.ev_class, d.refobjid
    FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
    WHERE w.rulename = '_RETURN'
"""
WINDOWS = """
    SELECT c.oid, pg_get_viewdef(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'v' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND array_to_string(c.reloptions, ',') ~ 'security_barrier=(true|on|1|yes)'
"""

RULES = """
    SELECT w.ev_class, w.rulename FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE w.rulename <> '_RETURN' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 2
"""

TRIGGERS = """
    SELECT t.tgrelid, t.tgname, t.tgenabled <> 'D', t.tgfoid
    FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY t.tgname
"""

ROUTINES = """
    SELECT p.oid, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), pg_get_userbyid(p.proowner),
           o.rolsuper OR o.rolbypassrls, p.prosecdef, p.proleakproof,
           p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype),
           ARRAY(SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee)::text END
                 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
                 WHERE x.privilege_type = 'EXECUTE'),
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                   AND d.deptype = 'e'),
           p.prokind = 'p'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
    WHERE p.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)' ORDER BY 2, 3, 4
"""

SHADOWS = """
    SELECT 'operator', format('%I.%s (%s, %s)', n.nspname, o.oprname,
                              CASE o.oprleft WHEN 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END,
                              format_type(o.oprright, NULL))
    FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE o.oid >= 16384 AND o.oprleft < 16384 AND o.oprright < 16384
      AND EXISTS (SELECT FROM pg_operator s WHERE s.oid < 16384 AND s.oprname = o.oprname)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_operator'::regclass AND d.objid = o.oid
                      AND d.deptype = 'e')
    UNION ALL
    SELECT 'cast', format('(%s AS %s)', format_type(c.castsource, NULL), format_type(c.casttarget, NULL))
    FROM pg_cast c
    WHERE c.oid >= 16384 AND c.castsource < 16384 AND c.casttarget < 16384 AND c.castcontext <> 'e'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
    ORDER BY 1, 2
"""

# Privileges on what is no table: (kind, object, owner, grantee, privilege).
PRIVILEGES = """
    SELECT 'schema', quote_ident(n.nspname), CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END,
           x.privilege_type
    FROM pg_namespace n, aclexplode(n.nspacl) x WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'database', quote_ident(b.datname), CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END,
           x.privilege_type
    FROM pg_database b, aclexplode(coalesce(b.datacl, acldefault('d', b.datdba))) x
    WHERE b.datname = current_database()
    UNION ALL
    SELECT 'table', 'pg_catalog.' || c.relname,
           CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END, x.privilege_type
    FROM pg_class c, LATERAL (
        SELECT grantee, privilege_type FROM aclexplode(c.relacl)
        UNION SELECT y.grantee, y.privilege_type
        FROM pg_attribute a, aclexplode(a.attacl) y WHERE a.attrelid = c.oid
    ) x
    WHERE c.oid IN ('pg_catalog.pg_statistic'::regclass, 'pg_catalog.pg_statistic_ext_data'::regclass)
    UNION ALL
    SELECT 'large objects', pg_get_userbyid(m.lomowner), coalesce(g.grantee, pg_get_userbyid(m.lomowner)),
           count(DISTINCT m.oid)::text
    FROM pg_largeobject_metadata m LEFT JOIN LATERAL (
        SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END AS grantee
        FROM aclexplode(m.lomacl) x
    ) g ON true
    GROUP BY 2, 3
    UNION ALL
    SELECT 'setting', 'lo_compat_privileges', 'PUBLIC', current_setting('lo_compat_privileges')
    ORDER BY 1, 2, 3, 4
"""

DEFAULTS = """
    SELECT pg_get_userbyid(d.defaclrole), coalesce(n.nspname, ''), d.defaclobjtype::text,
           CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END, x.privilege_type
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
    LEFT JOIN LATERAL aclexplode(d.defaclacl) x ON true
    ORDER BY 1, 2, 3, 4, 5
"""

EXTENSIONS = """
    SELECT 'extension', extname FROM pg_extension
    UNION ALL SELECT 'language', lanname FROM pg_language l
    WHERE NOT l.lanpltrusted AND l.lanispl AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_language'::regclass AND d.objid = l.oid AND d.deptype = 'e')
    ORDER BY 1, 2
"""

PUBLICATIONS = """
    SELECT b.pubname, b.puballtables, coalesce(t.relations, '{}')
    FROM pg_publication b LEFT JOIN LATERAL (
        SELECT array_agg(c.oid) AS relations
        FROM pg_publication_tables v JOIN pg_namespace n ON n.nspname = v.schemaname
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.tablename
        WHERE v.pubname = b.pubname
    ) t ON true ORDER BY 1
"""

SLOTS = """
    SELECT slot_name, plugin FROM pg_replication_slots
    WHERE slot_type = 'logical' AND database = current_database() ORDER BY 1
"""

# What schema `tenancy` is made of besides its functions, as comparable text.
LIBRARY = """
    SELECT 'schema tenancy', 'owner ' || pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE n.nspname = 'tenancy'
    UNION ALL
    SELECT 'schema tenancy', x.privilege_type || ' to '
           || CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END
    FROM pg_namespace n, aclexplode(n.nspacl) x WHERE n.nspname = 'tenancy'
    UNION ALL
    SELECT 'table tenancy.' || quote_ident(c.relname), f.fact
    FROM pg_class c CROSS JOIN LATERAL (
        SELECT 'owner ' || pg_get_userbyid(c.relowner) AS fact
        UNION ALL SELECT concat('row security ', c.relrowsecurity, ' forced ', c.relforcerowsecurity)
        UNION ALL SELECT 'column ' || concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                                                CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                                                'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT 'constraint ' || pg_get_constraintdef(k.oid)
        FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 'n'
        UNION ALL SELECT 'trigger ' || regexp_replace(pg_get_triggerdef(t.oid), '^CREATE ', '')
                               || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' enabled ' || t.tgenabled::text END
        FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
        UNION ALL SELECT 'policy ' || concat_ws(' ', p.polname, p.polpermissive, p.polcmd,
                                                pg_get_expr(p.polqual, p.polrelid),
                                                pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p WHERE p.polrelid = c.oid
        UNION ALL SELECT 'rule ' || w.rulename FROM pg_rewrite w WHERE w.ev_class = c.oid
        UNION ALL SELECT g.privilege_type || ' to '
                         || CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee) END
        FROM aclexplode(c.relacl) g
        UNION ALL SELECT format('%s (%I) to %s', g.privilege_type, a.attname,
                                CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END)
        FROM pg_attribute a, aclexplode(a.attacl) g WHERE a.attrelid = c.oid
    ) f
    WHERE c.relnamespace = to_regnamespace('tenancy') AND c.relkind IN ('r', 'p', 'S')
    ORDER BY 1, 2
"""
