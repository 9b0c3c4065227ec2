-- One account for each node, and the login of the fence, for MySQL 8 and MariaDB 10.5 or newer. See docs/fences.md.
--
-- Replace the names and the passwords, then run it as root with the mysql client. Accounts of MySQL own nothing, so each of the
-- nodes gets the same rights on the app's database.

create user if not exists 'noco_1'@'%' identified by 'CHANGE-ME-1';
create user if not exists 'noco_2'@'%' identified by 'CHANGE-ME-2';
grant all privileges on nocobase.* to 'noco_1'@'%';
grant all privileges on nocobase.* to 'noco_2'@'%';

-- The fence keeps its numbers in a database of its own, which no restore of the app's touches. It may lock accounts, see whose sessions
-- there are, and end them. MariaDB writes the last right as "connection admin".
create database if not exists soloist;
create user if not exists 'soloist_fence'@'%' identified by 'CHANGE-ME-FENCE';
grant all privileges on soloist.* to 'soloist_fence'@'%';
grant select on mysql.* to 'soloist_fence'@'%';
grant create user, process on *.* to 'soloist_fence'@'%';
grant connection_admin on *.* to 'soloist_fence'@'%';
