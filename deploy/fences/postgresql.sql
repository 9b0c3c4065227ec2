-- One login role for each node, all of which act as one owner of the data, and the login of the fence. See docs/fences.md.
--
-- Run it as a superuser with psql, after the app's database was made. It may be run again, also with more nodes:
--
--   psql -d postgres -v app=nocobase -v owner=noco_owner -v nodes='noco_1 noco_2 noco_3' -v fence=soloist_fence \
--        -v own=soloist -v previous=nocobase -f postgresql.sql
--
--   app       the app's database
--   owner     the role that owns the data; nobody signs in as it
--   nodes     the login role of each node: its DB_USER
--   fence     the login of the agents that carry fences
--   own       the fence's own database, which no restore of the app's touches
--   previous  the role that owned the data so far; the same as owner if there is none
--
-- Then give each of them a password: \password noco_1
\set ON_ERROR_STOP on

-- `createdb` is for backups that are proven by a restore into a database of their own (verify_restore).
select format('create role %I nologin createdb', :'owner') where not exists (select from pg_roles where rolname = :'owner') \gexec
select format('create role %I login createdb', node) from unnest(string_to_array(:'nodes', ' ')) node
  where not exists (select from pg_roles where rolname = node) \gexec
select format('grant %I to %I', :'owner', node) from unnest(string_to_array(:'nodes', ' ')) node \gexec
-- What one node makes belongs to all of them, so that an upgrade on one works on what an install on another has made.
select format('alter role %I in database %I set role = %L', node, :'app', :'owner')
  from unnest(string_to_array(:'nodes', ' ')) node \gexec

-- The fence may lock these roles and end their sessions, and nothing else.
select format('create role %I login createrole', :'fence') where not exists (select from pg_roles where rolname = :'fence') \gexec
select format('grant %I to %I with admin option', node, :'fence') from unnest(string_to_array(:'nodes', ' ')) node \gexec
select format('create database %I owner %I', :'own', :'fence') where not exists (select from pg_database where datname = :'own') \gexec

select format('alter database %I owner to %I', :'app', :'owner') \gexec
\connect :app
select format('reassign owned by %I to %I', :'previous', :'owner') where :'previous' <> :'owner' \gexec
select format('alter schema public owner to %I', :'owner') \gexec
